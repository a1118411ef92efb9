"""Judge whether a quantized model still follows its float model, and which operation loses the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq_converters.data.samples import Samples, subset, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import logits, tflite_file
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import USELESS_BELOW_DB, dead_slices, useless_output
from edgeq_converters.progress import ignore
from edgeq_converters.sensitivity.tensor_noise import measure_tensors

_SAMPLES = 64
_RANDOM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """An output that does not follow the float model's.

    Attributes:
        reason: what is wrong with it at the logits, in words.
        operation: the first operation whose result is as bad, as `MUL 'name'`; None where none is.
    """

    output: str
    reason: str
    operation: str | None
    data: str = "calibration"

    def __str__(self) -> str:
        where = f"; {self.operation} loses it" if self.operation else ""
        what = " (random values; --calibration gives samples)" if self.data == "random" else ""
        return f"output `{self.output}` {self.reason}{where}{what}"


def find_loss(
    floating: Model, quantized: Model, samples: Samples, *, data: str = "calibration"
) -> Loss | None:
    """Return the first output that does not follow the float model; None where all do.

    `metrics.useless_output` and `dead_slices` decide.

    Args:
        data: what the samples are: `calibration` or `random`.
    """
    few = subset(samples, _SAMPLES)
    one, other = logits.cut(floating).model, logits.cut(quantized).model
    if len(few) < 2 or len(one.outputs) != len(other.outputs):
        return None
    expected = run_samples(one, few, advance=ignore)
    got = run_samples(other, few, advance=ignore)
    for index, (real, integers) in enumerate(zip(expected, got, strict=True)):
        values = to_real(integers, other.outputs[index])
        reason = useless_output(values, real) or dead_slices(values, real)
        if reason is not None:
            name = floating.outputs[min(index, len(floating.outputs) - 1)].name
            operation = _first_bad(floating, quantized, few)
            return Loss(output=name, reason=reason, operation=operation, data=data)
    return None


def random_samples(model: Model, *, seed: int) -> Samples:
    """Return samples of random values, for a model that comes without data."""
    random = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (_RANDOM * max(tensor.shape[0], 1), *tensor.shape[1:]) if tensor.shape else (_RANDOM,)
        kind = np.dtype(tensor.dtype)
        # 0 and 1 are valid flags, and valid indices of any vocabulary.
        values = random.standard_normal(shape) if kind.kind == "f" else random.integers(0, 2, shape)
        arrays.append(values.astype(kind))
    return Samples(inputs=model.inputs, arrays=tuple(arrays))


def useless(loss: Loss, *, subject: str) -> ConverterError:
    """Return the error for a result that the user does not accept."""
    return ConverterError("EQ334", subject, f"the result is useless: {loss}", hint=ADVICE)


def useless_pruning(reason: str, *, subject: str) -> ConverterError:
    """Return the error for a pruned file that the user does not accept."""
    return ConverterError(
        "EQ334",
        subject,
        f"the pruned file is useless: {reason}",
        hint="prune a smaller share, or re-tune for more --epochs",
    )


ADVICE = (
    "scale the inputs to one range before the model, or use --scheme int8-mixed --keep-float, int16x8 or"
    " dynamic; `edgeq sensitivity FLOAT --calibration C.npz --evaluation E.npz` shows each operation"
)


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
