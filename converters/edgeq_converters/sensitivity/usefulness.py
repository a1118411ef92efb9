"""Judge whether a quantized model still follows its float model, and which operation loses the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq_converters.data.samples import Samples, subset, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import logits, postprocessing, tflite_file
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import USELESS_BELOW_DB, dead_slices, output_sqnr, useless_output
from edgeq_converters.progress import ignore
from edgeq_converters.sensitivity.tensor_noise import measure_tensors
from edgeq_converters.values import Caution, OutputSqnr

_SAMPLES = 64
_SEARCHED = 16
"""Samples for the search of the operation that loses the answer: it compares every tensor of both models."""
_RANDOM = 8
POOR_BELOW_DB = 20.0
"""SQNR of a slice of an output below which a conversion warns."""


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
    # Of detections, what their post-processing reads is compared: it lists boxes in an order of its own.
    one, other = logits.cut_both(*(postprocessing.detach(each).model for each in (floating, quantized)))
    if len(few) < 2 or len(one.outputs) != len(other.outputs):
        return None
    expected = run_samples(one, few, advance=ignore)
    got = run_samples(other, few, advance=ignore)
    for index, (real, integers) in enumerate(zip(expected, got, strict=True)):
        values = to_real(integers, other.outputs[index])
        reason = useless_output(values, real) or dead_slices(values, real)
        if reason is not None:
            name = floating.outputs[min(index, len(floating.outputs) - 1)].name
            operation = _first_bad(floating, quantized, subset(few, _SEARCHED))
            return Loss(output=name, reason=reason, operation=operation, data=data)
    return None


def poor_outputs(floating: Model, quantized: Model, samples: Samples) -> tuple[Caution, ...]:
    """Return a warning for each output with a slice below POOR_BELOW_DB, or with a dead one.

    Args:
        samples: up to 64 of them are run.
    """
    few = subset(samples, _SAMPLES)
    # Of detections, what their post-processing reads is compared.
    one, other = (postprocessing.detach(each).model for each in (floating, quantized))
    if len(few) < 2 or len(one.outputs) != len(other.outputs):
        return ()
    expected = run_samples(one, few, advance=ignore)
    got = run_samples(other, few, advance=ignore)
    figures = [
        output_sqnr(info.name, to_real(integers, its), real)
        for info, its, real, integers in zip(one.outputs, other.outputs, expected, got, strict=True)
    ]
    return tuple(_poor(each) for each in figures if _is_poor(each))


def _is_poor(figure: OutputSqnr) -> bool:
    return figure.slices > 0 and (bool(figure.dead) or figure.worst_db < POOR_BELOW_DB)


def _poor(figure: OutputSqnr) -> Caution:
    dead = f"; {len(figure.dead)} are the same for every sample" if figure.dead else ""
    whole = "equal" if figure.sqnr_db is None else f"{figure.sqnr_db:.1f} dB"
    slice_db = figure.worst_slice_db or 0.0
    return Caution(
        f"slice {figure.worst_slice} of output `{figure.name}` has {slice_db:.1f} dB on the"
        f" calibration samples (the whole output {whole}{dead}): try --int16 head with --io float32, or"
        " --scheme int8-mixed --keep-float head"
    )


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
