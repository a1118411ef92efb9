"""Choose a calibrator for each tensor: the one whose rounding and clipping add least noise at the logits.

The noise is measured, not modelled: the float model continues from a tensor's quantized values. The noises of
different tensors add up to first order, so that each tensor can be decided alone; tensors that share a scale
are decided together. Related: AIMET's automatic mixed precision (arXiv 2302.05397) ranks layers by quantizing
only one of them, to choose precisions; here the same measurement chooses ranges.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.calibrators import CALIBRATORS, calibrator_of
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.qparams import Grid, Range
from edgeq_converters.calibration.ranges import Ranges, TensorRange, calibrated_ranges
from edgeq_converters.calibration.scale_groups import scale_groups
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, logits, tflite_file
from edgeq_converters.graph.cost import macs
from edgeq_converters.graph.executor import Executor
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model

Array = npt.NDArray[Any]
WHOLE_MODEL = tuple(spec for entry in CALIBRATORS.values() for spec in entry.whole_model)
"""Tried for all tensors at once, too."""
ALL = (*WHOLE_MODEL, *(spec for entry in CALIBRATORS.values() for spec in entry.single_tensors))
"""The logits tolerate more clipping in some tensors than in all: those of `single_tensors` clip most."""
WHEN_COSTLY = tuple(spec for entry in CALIBRATORS.values() for spec in entry.when_costly)
"""Tried where a run of the model is expensive."""

_AS_GOOD = 1.1
"""Noises that differ by less than this factor count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The calibrators of a model's tensors.

    Attributes:
        calibrators: by tensor.
        noise: of each calibrator of WHOLE_MODEL when used for all tensors, as a share of the logits' power.
        least: the noise of `calibrators`, as such a share.
    """

    calibrators: Mapping[str, str]
    noise: Mapping[str, float]
    least: float


def choose(
    model: Model,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    *,
    names: Sequence[str],
    grid: Grid,
) -> Choice:
    """Return the calibrator of each activation of a float model.

    Args:
        histograms: of the activations.
        samples: to measure the noise on; a handful is enough if the model has many logits.
        names: the calibrators to try; among equally good ones, that with the widest range is chosen.

    Raises:
        ConverterError: EQ303 LiteRT does not run an operation on its own.
    """
    cut = logits.cut(model).model
    groups = scale_groups(cut)
    candidates = {
        key: [common_range(key, histograms, calibrator=name, grid=grid) for name in names]
        for key in set(groups.values())
        if all(histograms[name].total for name in key)
    }
    noise = {key: np.zeros(len(names)) for key in candidates}
    for name, measured in _noises(cut, groups, candidates, samples, grid=grid):
        noise[groups[name]] += measured
    totals = np.sum(list(noise.values()), axis=0) if noise else np.zeros(len(names))
    best = {key: names[widest_of_best(candidates[key], measured)] for key, measured in noise.items()}
    return Choice(
        calibrators={name: best[key] for name, key in groups.items() if key in best},
        noise={name: float(totals[i]) for i, name in enumerate(names) if name in WHOLE_MODEL},
        least=float(sum(measured.min() for measured in noise.values())),
    )


def widest_of_best(ranges: Sequence[Range], noise: Array) -> int:
    """Return the position of the widest range among those with about the least noise."""
    # Other data reaches further than these samples: among equally good ranges, the widest is safest.
    good = [i for i in range(len(ranges)) if noise[i] <= noise.min() * _AS_GOOD]
    return max(good, key=lambda i: ranges[i][1] - ranges[i][0])


def common_range(
    names: Sequence[str], histograms: Mapping[str, Histogram], *, calibrator: str, grid: Grid
) -> Range:
    """Return the range that holds the calibrator's ranges of several tensors."""
    ranges = [calibrator_of(calibrator)(histograms[name], grid) for name in names]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def per_tensor_ranges(
    model: Model, histograms: Mapping[str, Histogram], calibrators: Mapping[str, str], *, grid: Grid
) -> Ranges:
    """Return the range of each activation by its own calibrator; min/max for those without one."""
    ranges = calibrated_ranges(model, histograms, calibrator="minmax", grid=grid)
    groups = scale_groups(model)
    for name, calibrator in calibrators.items():
        if name in ranges:
            low, high = common_range(groups[name], histograms, calibrator=calibrator, grid=grid)
            ranges[name] = TensorRange(
                low=np.full_like(ranges[name].low, low), high=np.full_like(ranges[name].high, high)
            )
    return ranges


def _noises(
    model: Model,
    groups: Mapping[str, tuple[str, ...]],
    candidates: Mapping[tuple[str, ...], Sequence[Range]],
    samples: Samples,
    *,
    grid: Grid,
) -> Iterator[tuple[str, Array]]:
    """Yield (tensor, the noise at the logits under each of its candidate ranges)."""
    graph = model.graph
    executor = Executor(model, samples)
    threads = min(os.cpu_count() or 1, 4) if macs(model) > 50_000_000 else 1
    references = [array.astype(np.float64) for array in _Remainder(model, executor, threads=threads).run({})]
    powers = [max(float(np.square(array).sum()), 1e-30) for array in references]

    def measure(indices: Sequence[int]) -> Iterator[tuple[str, Array]]:
        remainder: _Remainder | None = None
        for index in indices:
            name = tflite_file.tensor_name(graph.tensors[index])
            ranges = candidates.get(groups.get(name, ()))
            if ranges is None or index not in executor.values:
                continue
            if remainder is None:
                remainder = _Remainder(model, executor, threads=threads)
            values = executor.values[index]
            noise: dict[Range, float] = {}
            for low, high in ranges:
                if (low, high) not in noise:
                    rounded = grid.rounded(values.astype(np.float64), low, high).astype(np.float32)
                    outputs = remainder.run({index: rounded})
                    noise[low, high] = float(
                        np.mean(
                            [
                                np.square(output - reference).sum() / power
                                for output, reference, power in zip(outputs, references, powers, strict=True)
                            ]
                        )
                    )
            yield name, np.array([noise[pair] for pair in ranges])

    yield from measure([int(i) for i in graph.inputs])
    for operator in graph.operators:
        executor.step()
        yield from measure([int(i) for i in operator.outputs])


class _Remainder:
    """The operations that an executor has not run yet, run from its values with some of them replaced."""

    def __init__(self, model: Model, executor: Executor, *, threads: int) -> None:
        self._executor = executor
        self._outputs = [int(i) for i in model.graph.outputs]
        operators = model.graph.operators[executor.position :]
        computed = {int(i) for operator in operators for i in operator.outputs}
        read = {i for operator in operators for i in tflite_file.tensor_indices(operator)}
        self._live = sorted(index for index in executor.values if index in read)
        self._computed = [index for index in self._outputs if index in computed]
        self._interpreter: Interpreter | None = None
        if self._computed:
            part = edit.extract(model, operators, self._live, self._computed)
            self._interpreter = Interpreter(part, threads=threads)

    def run(self, replaced: Mapping[int, Array]) -> list[Array]:
        """Return the model's outputs, each of shape (batches, *tensor shape)."""
        values = {**self._executor.values, **replaced}
        outputs: dict[int, Array] = {index: values[index] for index in self._outputs if index in values}
        if self._interpreter is not None:
            batches: list[list[Array]] = []
            arguments = [values[index] for index in self._live]
            # Where only constants are left to compute from, there are still as many batches.
            for number in range(len(next(iter(values.values())))):
                self._interpreter.run([array[number] for array in arguments])
                batches.append(self._interpreter.results())
            for i, index in enumerate(self._computed):
                outputs[index] = np.stack([batch[i] for batch in batches])
        return [outputs[index] for index in self._outputs]
