"""Parity: whether a float .tflite computes what its source does, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference
from edgeq_converters.metrics import decibels
from edgeq_converters.sources.types import Reference
from edgeq_converters.values import PARITY_WARN_BELOW_DB, Parity, TensorInfo

Array = npt.NDArray[Any]
SAMPLES = 16
REFUSE_BELOW_DB = 20.0


def check(
    data: bytes,
    reference: Reference,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    samples: Samples | None,
    seed: int,
    subject: str,
) -> Parity:
    """Run source and float .tflite on the same samples and compare.

    Args:
        samples: representative ones, of which some are taken at even distances; None for seeded random ones.

    Raises:
        ConverterError: EQ322 when they disagree grossly, or their outputs' shapes do.
    """
    rows = _chosen(samples, inputs, seed)
    interpreter = inference.open_interpreter(data, subject=subject)
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    targets = [detail["index"] for detail in interpreter.get_output_details()]
    found = _Sum(), _Sum()
    worst: dict[str, _Sum] = {tensor.name: _Sum() for tensor in outputs}
    count = 0
    for row in rows:
        fed = {tensor.name: array for tensor, array in zip(inputs, row, strict=True)}
        inference.invoke(interpreter, sources, row, subject=subject)
        ours = {
            tensor.name: np.array(interpreter.get_tensor(index))
            for tensor, index in zip(outputs, targets, strict=True)
        }
        theirs = _matched(reference(fed), outputs, subject=subject)
        if not count:
            again = _matched(reference(fed), outputs, subject=subject)
            for tensor in outputs:
                found[1].add(theirs[tensor.name], again[tensor.name])
        for tensor in outputs:
            _same_shape(tensor.name, theirs[tensor.name], ours[tensor.name], subject)
            worst[tensor.name].add(theirs[tensor.name], ours[tensor.name])
        count += len(row[0]) if row[0].ndim else 1
    parity = Parity(
        samples=count,
        data="random" if samples is None else "calibration",
        max_abs_difference=max(part.largest for part in worst.values()),
        sqnr_db=min(part.sqnr_db() for part in worst.values()),
        repeatable=found[1].sqnr_db() > PARITY_WARN_BELOW_DB,
    )
    if parity.repeatable and parity.sqnr_db < REFUSE_BELOW_DB:
        name = min(worst, key=lambda key: worst[key].sqnr_db())
        raise ConverterError(
            "EQ322",
            subject,
            f"the float .tflite does not compute what its source does: output `{name}` differs by up to "
            f"{worst[name].largest:.3g}",
            expected=f"at least {REFUSE_BELOW_DB:.0f} dB on {count} {parity.data} samples",
            got=f"{parity.sqnr_db:.1f} dB",
            hint="export the model with fixed shapes in inference mode, or report the model to the converter",
        )
    return parity


class _Sum:
    """Signal and error of one output, summed up."""

    def __init__(self) -> None:
        self.signal = self.error = self.largest = 0.0

    def add(self, expected: Array, got: Array) -> None:
        one, other = expected.astype(np.float64), got.astype(np.float64)
        both = np.isfinite(one) & np.isfinite(other)
        if not np.array_equal(np.isfinite(one), np.isfinite(other)):
            self.error = self.largest = math.inf
        difference = np.abs(one[both] - other[both])
        self.signal += float(np.square(one[both]).sum())
        self.error += float(np.square(difference).sum())
        self.largest = max(self.largest, float(difference.max(initial=0.0)))

    def sqnr_db(self) -> float:
        if self.error == math.inf:
            return -math.inf
        # An output that is zero everywhere has no signal: what differs by rounding only is equal.
        return decibels(self.signal or (1.0 if self.largest < 1e-6 else 0.0), self.error)


def _chosen(samples: Samples | None, inputs: Sequence[TensorInfo], seed: int) -> Iterable[list[Array]]:
    if samples is None:
        return _random(inputs, seed)
    size = max(inputs[0].shape[0], 1) if inputs[0].shape else 1
    wanted = np.unique(np.linspace(0, len(samples) - 1, min(max(SAMPLES, size), len(samples))).astype(int))
    some = Samples(inputs=samples.inputs, arrays=tuple(array[wanted] for array in samples.arrays))
    return (rows for rows, _ in inference.batches(some, inputs))


def _random(inputs: Sequence[TensorInfo], seed: int) -> Iterable[list[Array]]:
    random = np.random.default_rng(seed)
    for _ in range(SAMPLES):
        row = []
        for tensor in inputs:
            dtype = np.dtype(tensor.dtype)
            if dtype.kind == "f":
                row.append(random.standard_normal(tensor.shape).astype(dtype))
            else:  # indices and flags: 0 and 1 are in every vocabulary
                row.append(random.integers(0, 2, tensor.shape).astype(dtype))
        yield row


def _matched(
    given: Mapping[str, Array], outputs: Sequence[TensorInfo], *, subject: str
) -> Mapping[str, Array]:
    if set(given) == {tensor.name for tensor in outputs}:
        return given
    if len(given) == len(outputs) == 1:
        return {outputs[0].name: next(iter(given.values()))}
    raise ConverterError(
        "EQ322",
        subject,
        "the outputs of the float .tflite are not those of its source",
        expected=", ".join(sorted(given)),
        got=", ".join(sorted(tensor.name for tensor in outputs)),
    )


def _same_shape(name: str, expected: Array, got: Array, subject: str) -> None:
    if expected.shape != got.shape:
        raise ConverterError(
            "EQ322",
            subject,
            f"output `{name}` has another shape in the float .tflite",
            expected=str(expected.shape),
            got=str(got.shape),
        )
