"""Judge whether a quantized model still follows its float model, and which operation loses the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, subset, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import logits, tflite_file
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import decibels
from edgeq_converters.progress import ignore
from edgeq_converters.sensitivity.tensor_noise import measure_tensors

USELESS_BELOW_DB = 10.0
"""SQNR of what varies in an output: at 10 dB the error has a third of the size of the differences."""

_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """An output that does not follow the float model's.

    Attributes:
        sqnr_db: of the output's deviations from its mean over the samples, at the logits.
        operation: the first operation whose result is as bad, as `MUL 'name'`; None where none is.
    """

    output: str
    sqnr_db: float
    operation: str | None
    samples: int

    def __str__(self) -> str:
        where = f"; {self.operation} loses it" if self.operation else ""
        return (
            f"output `{self.output}` is {self.sqnr_db:.1f} dB from the float model on {self.samples} "
            f"samples, at least {USELESS_BELOW_DB:.0f} dB are needed{where}"
        )


def find_loss(floating: Model, quantized: Model, samples: Samples) -> Loss | None:
    """Return the output that follows the float model least, if it is too bad to use; else None.

    An output whose values hardly differ between the samples is judged by its deviations: a large constant
    part would hide that nothing else is left.
    """
    few = subset(samples, _SAMPLES)
    one, other = logits.cut(floating).model, logits.cut(quantized).model
    if len(few) < 2 or len(one.outputs) != len(other.outputs):
        return None
    expected = run_samples(one, few, advance=ignore)
    got = run_samples(other, few, advance=ignore)
    worst: tuple[float, str] | None = None
    for index, (real, integers) in enumerate(zip(expected, got, strict=True)):
        value = _varying_db(real.astype(np.float64), to_real(integers, other.outputs[index]))
        if value is not None and (worst is None or value < worst[0]):
            worst = value, floating.outputs[min(index, len(floating.outputs) - 1)].name
    if worst is None or worst[0] >= USELESS_BELOW_DB:
        return None
    operation = _first_bad(floating, quantized, few)
    return Loss(output=worst[1], sqnr_db=worst[0], operation=operation, samples=len(few))


def useless(loss: Loss, *, subject: str) -> ConverterError:
    """Return the error for a result that the user does not accept."""
    return ConverterError("EQ334", subject, f"the result is useless: {loss}", hint=ADVICE)


ADVICE = (
    "scale the inputs to one range before the model, or use --scheme int8-mixed --keep-float, int16x8 or"
    " dynamic; edgeq sensitivity shows each operation"
)


def _varying_db(expected: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> float | None:
    """Return the SQNR of an output's deviations from its mean; None where the float output does not vary."""
    centre = expected.mean(axis=0)
    signal = float(np.square(expected - centre).sum())
    if signal <= 1e-9 * max(float(np.square(expected).sum()), 1e-30):
        return None
    # A constant offset of an output counts as an error too.
    return max(decibels(signal, float(np.square(expected - got).sum())), -99.0)


def _first_bad(floating: Model, quantized: Model, samples: Samples) -> str | None:
    named = [
        (tflite_file.op_name(floating.parsed, operator), tflite_file.operation_name(floating.graph, operator))
        for operator in floating.graph.operators
    ]
    noise = measure_tensors(floating, quantized, [name for _, name in named if name], samples)
    for kind, name in named:
        measured = noise[name].sqnr_db if name in noise else None
        if measured is not None and measured < USELESS_BELOW_DB:
            return f"{kind} {name!r}"
    return None
