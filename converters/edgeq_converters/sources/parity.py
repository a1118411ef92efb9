"""Parity: check that a float .tflite computes what its source does, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, pick
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import state
from edgeq_converters.graph.interpreter import Interpreter, batches
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import decibels
from edgeq_converters.sources.types import Reference
from edgeq_converters.values import PARITY_WARN_BELOW_DB, Parity, TensorInfo

Array = npt.NDArray[Any]
SAMPLES = 16
REFUSE_BELOW_DB = 20.0


def check_parity(model: Model, reference: Reference, *, samples: Samples | None, seed: int) -> Parity:
    """Run a source and its float .tflite on the same samples and compare their outputs.

    Args:
        samples: a representative dataset, of which evenly spaced samples are used; None for random ones.
        seed: of the random samples.

    Raises:
        ConverterError: EQ322 outputs differ grossly, or in shape.
    """
    interpreter = Interpreter(model)
    kept = state.read(model)
    repeated = _Difference()
    differences = {tensor.name: _Difference() for tensor in model.outputs}
    count = 0
    for row in _rows(model, samples, seed):
        arguments = {tensor.name: array for tensor, array in zip(model.inputs, row, strict=True)}
        # A source whose variables became resource variables keeps its state as well: both go on from row to
        # row.
        if not kept.resources:
            interpreter.reset()
        interpreter.run(row)
        ours = {
            tensor.name: array for tensor, array in zip(model.outputs, interpreter.results(), strict=True)
        }
        theirs = _by_name(reference(arguments), model)
        if not count and not kept.resources:
            again = _by_name(reference(arguments), model)
            for name in differences:
                repeated.add(theirs[name], again[name])
        for name, difference in differences.items():
            _require_same_shape(name, theirs[name], ours[name], model.subject)
            difference.add(theirs[name], ours[name])
        count += 1 if samples is None else samples.batch
    parity = Parity(
        samples=count,
        data="random" if samples is None else "calibration",
        max_abs_difference=max(part.largest for part in differences.values()),
        sqnr_db=min(part.sqnr_db() for part in differences.values()),
        repeatable=repeated.sqnr_db() > PARITY_WARN_BELOW_DB,
    )
    if parity.repeatable and parity.sqnr_db < REFUSE_BELOW_DB:
        name = min(differences, key=lambda key: differences[key].sqnr_db())
        raise ConverterError(
            "EQ322",
            model.subject,
            f"the float .tflite does not compute what its source does: output `{name}` differs by up to "
            f"{differences[name].largest:.3g}",
            expected=f"at least {REFUSE_BELOW_DB:.0f} dB on {count} {parity.data} samples",
            got=f"{parity.sqnr_db:.1f} dB",
            hint="export the model with fixed shapes in inference mode, or report the model to the converter",
        )
    return parity


class _Difference:
    """Running sums of one output's signal and error."""

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
        # An output that is zero everywhere has no signal; a rounding difference there counts as equal.
        return decibels(self.signal or (1.0 if self.largest < 1e-6 else 0.0), self.error)


def _rows(model: Model, samples: Samples | None, seed: int) -> Iterable[list[Array]]:
    if samples is None:
        return _random_rows(model.inputs, seed)
    size = samples.batch
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(max(SAMPLES, size), len(samples))).astype(int))
    return (rows for rows, _ in batches(pick(samples, chosen), model.inputs))


def _random_rows(inputs: Sequence[TensorInfo], seed: int) -> Iterable[list[Array]]:
    random = np.random.default_rng(seed)
    for _ in range(SAMPLES):
        row = []
        for tensor in inputs:
            dtype = np.dtype(tensor.dtype)
            if dtype.kind == "f":
                row.append(random.standard_normal(tensor.shape).astype(dtype))
            else:  # 0 and 1 are valid flags, and valid indices of any vocabulary
                row.append(random.integers(0, 2, tensor.shape).astype(dtype))
        yield row


def _by_name(results: Mapping[str, Array], model: Model) -> Mapping[str, Array]:
    """Return the source's results by the names of the .tflite's outputs."""
    names = [tensor.name for tensor in model.outputs]
    if set(results) == set(names):
        return results
    if len(results) == len(names) == 1:
        return {names[0]: next(iter(results.values()))}
    raise ConverterError(
        "EQ322",
        model.subject,
        "the outputs of the float .tflite are not those of its source",
        expected=", ".join(sorted(results)),
        got=", ".join(sorted(names)),
    )


def _require_same_shape(name: str, expected: Array, got: Array, subject: str) -> None:
    if expected.shape != got.shape:
        raise ConverterError(
            "EQ322",
            subject,
            f"output `{name}` has another shape in the float .tflite",
            expected=str(expected.shape),
            got=str(got.shape),
        )
