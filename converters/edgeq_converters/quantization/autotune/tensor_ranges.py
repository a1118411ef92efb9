"""Choose a calibrator for each tensor: the one whose rounding and clipping add least noise at the logits.

The noise is measured, not modelled: the float model continues from a tensor's quantized values. The noises of
different tensors add up to first order, so that each tensor can be decided alone; tensors that share a scale
are decided together. Related: AIMET's automatic mixed precision (arXiv 2302.05397) ranks layers by quantizing
only one of them, to choose precisions; here the same measurement chooses ranges.
"""

from __future__ import annotations

import math
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
from edgeq_converters.data.samples import Samples, subset
from edgeq_converters.graph import batching, edit, logits, tflite_file
from edgeq_converters.graph.cost import macs
from edgeq_converters.graph.executor import Executor, Runner
from edgeq_converters.graph.model import Model

Array = npt.NDArray[Any]
WHOLE_MODEL = tuple(spec for entry in CALIBRATORS.values() for spec in entry.whole_model)
"""Tried for all tensors at once, too."""
ALL = (*WHOLE_MODEL, *(spec for entry in CALIBRATORS.values() for spec in entry.single_tensors))
"""The logits tolerate more clipping in some tensors than in all: those of `single_tensors` clip most."""
WHEN_COSTLY = tuple(spec for entry in CALIBRATORS.values() for spec in entry.when_costly)
"""Tried where a run of the model is expensive."""

_FIRST_SHARE = 0.3
"""Of the runs: for the noise of all tensors under the widest ranges."""
_LOUD = 0.97
"""Share of all noise that the tensors cause for which all calibrators are tried."""
_MOST_SAMPLES = 32
_ENOUGH_LOGITS = 256
"""Values of the outputs that a noise is averaged over: its relative standard error is then about 9 %."""
_STRETCH = 8
_LONG = 200
"""Operations from which a model counts as long, as recurrent layers are that are written out."""

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
    runs: float = math.inf,
) -> Choice:
    """Return the calibrator of each activation of a float model.

    First the noise of every tensor is measured under the widest ranges, those of names[0]. Then the others
    are measured for the tensors that cause most of this noise: the rest would gain nothing that counts, and
    keeps names[0].

    Args:
        histograms: of the activations.
        samples: to measure the noise on; a handful is enough if the model has many logits.
        names: the calibrators to try, the widest first; among equally good ones, that with the widest range
            is chosen.
        runs: of the whole model that the measurement may take; it uses fewer of the samples, but one at
            least.

    Raises:
        ConverterError: EQ303 LiteRT does not run an operation on its own.
    """
    cut = logits.cut(model).model
    groups = scale_groups(cut)
    keys = [key for key in dict.fromkeys(groups.values()) if all(histograms[name].total for name in key)]

    def ranges(key: tuple[str, ...], tried: Sequence[str]) -> list[Range]:
        return [common_range(key, histograms, calibrator=name, grid=grid) for name in tried]

    widest = {key: ranges(key, names[:1]) for key in keys}
    enough = -(-_ENOUGH_LOGITS // max(sum(math.prod(info.shape) for info in cut.outputs), 1))
    several = subset(samples, _affordable(len(groups), runs=runs * _FIRST_SHARE, enough=enough))
    alone = dict.fromkeys(keys, 0.0)
    for name, measured in _noises(cut, groups, widest, several, grid=grid):
        alone[groups[name]] += float(measured[0])
    noise = {key: np.full(len(names), alone[key]) for key in keys}
    best = dict.fromkeys(keys, names[0])
    loud = _loudest(alone) if len(names) > 1 else []
    candidates = {key: ranges(key, names) for key in loud}
    tried = sum(len(set(each)) * len(key) for key, each in candidates.items())
    few = subset(samples, _affordable(tried, runs=runs * (1 - _FIRST_SHARE), enough=enough))
    noise |= {key: np.zeros(len(names)) for key in loud}
    if loud:
        for name, measured in _noises(cut, groups, candidates, few, grid=grid):
            noise[groups[name]] += measured
    for key in loud:
        best[key] = names[widest_of_best(candidates[key], noise[key])]
    totals = np.sum(list(noise.values()), axis=0) if noise else np.zeros(len(names))
    return Choice(
        calibrators={name: best[key] for name, key in groups.items() if key in best},
        noise={name: float(totals[i]) for i, name in enumerate(names) if name in WHOLE_MODEL},
        least=float(sum(measured.min() for measured in noise.values())),
    )


def _affordable(count: int, *, runs: float, enough: int) -> int:
    """Return on how many samples to measure `count` ranges: each runs half of the model on average.

    Args:
        enough: samples below which the noise is inexact; they may take _STRETCH times as many runs.
    """
    most = 2 * runs / max(count, 1)
    return int(min(max(most, min(enough, most * _STRETCH), 1), _MOST_SAMPLES))


def _loudest(noise: Mapping[tuple[str, ...], float]) -> list[tuple[str, ...]]:
    """Return the tensors that together cause nearly all of the noise, the loudest first."""
    order = sorted(noise, key=lambda key: (-noise[key], key))
    before = np.cumsum([0.0, *(noise[key] for key in order)])
    return [
        key for key, sum_of_louder in zip(order, before, strict=False) if sum_of_louder < _LOUD * before[-1]
    ]


def widest_of_best(ranges: Sequence[Range], noise: Array) -> int:
    """Return the position of the widest range among those with about the least noise."""
    # Other data reaches further than these samples: among equally good ranges, the widest is safest.
    # A range with which an operation gives NaN, as a division by a rounded zero does, is the worst.
    finite = np.where(np.isnan(noise), np.inf, noise)
    good = [i for i in range(len(ranges)) if finite[i] <= finite.min() * _AS_GOOD]
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
    remainder = _Remainder(model, executor, threads=threads)
    references = [array.astype(np.float64) for array in remainder.run({})]
    powers = [max(float(np.square(array).sum()), 1e-30) for array in references]

    def measure(indices: Sequence[int]) -> Iterator[tuple[str, Array]]:
        for index in indices:
            name = tflite_file.tensor_name(graph.tensors[index])
            ranges = candidates.get(groups.get(name, ()))
            if ranges is None or index not in executor.values:
                continue
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
    """The operations that an executor has not run yet, run from its values with some of them replaced.

    They are run in two parts, in a long model in three. A later part begins at the next block of operations
    and serves every position before it: packing the whole remainder again for each tensor would take longer
    than to run it.
    """

    def __init__(self, model: Model, executor: Executor, *, threads: int) -> None:
        self._model, self._executor, self._threads = model, executor, threads
        self._outputs = [int(i) for i in model.graph.outputs]
        count = len(model.graph.operators)
        levels = 2 if count > _LONG else 1
        self._blocks = [max(int(count ** (n / (levels + 1))), 1) for n in range(1, levels + 1)]
        self._parts: dict[int, tuple[tuple[int, ...], _Part]] = {}

    def run(self, replaced: Mapping[int, Array]) -> list[Array]:
        """Return the model's outputs, each of shape (samples, *tensor shape)."""
        operators = self._model.graph.operators
        position = self._executor.position
        cuts = [position]
        for block in self._blocks:
            cuts.append(min(-(-cuts[-1] // block) * block, len(operators)))
        cuts.append(len(operators))
        needed = list(self._outputs)
        for level in reversed(range(len(cuts) - 1)):
            ends = tuple(cuts[level:])
            if level not in self._parts or self._parts[level][0] != ends:
                self._parts[level] = ends, self._part(operators[ends[0] : ends[1]], needed)
            needed = [*self._parts[level][1].inputs, *needed]
        values = {**self._executor.values, **replaced}
        for level in range(len(cuts) - 1):
            values |= self._parts[level][1].run(values)
        return [values[index] for index in self._outputs]

    def _part(self, operators: Sequence[Any], needed: Sequence[int]) -> _Part:
        return _Part(self._model, self._executor, operators, needed, threads=self._threads)


class _Part:
    """Consecutive operations, ready to run."""

    def __init__(
        self,
        model: Model,
        executor: Executor,
        operators: Sequence[Any],
        needed: Sequence[int],
        *,
        threads: int,
    ) -> None:
        self._count = len(next(iter(executor.values.values())))
        computed = {int(i) for operator in operators for i in operator.outputs}
        read = {i for operator in operators for i in tflite_file.tensor_indices(operator)} - computed
        tensors = model.graph.tensors
        self.inputs = sorted(i for i in read if not tflite_file.is_constant(model.parsed, tensors[i]))
        self._outputs = list(dict.fromkeys(i for i in needed if i in computed))
        self._runner: Runner | None = None
        if self._outputs:
            batch = self._count if batching.is_possible(model.parsed, operators) else 1
            part = edit.extract(model, operators, self.inputs, self._outputs, batch=batch)
            self._runner = Runner(part, threads=threads, batch=batch)

    def run(self, values: Mapping[int, Array]) -> dict[int, Array]:
        """Return the values that later operations and the model's outputs need, by tensor."""
        if self._runner is None:
            return {}
        results = self._runner.run([values[index] for index in self.inputs], count=self._count)
        return dict(zip(self._outputs, results, strict=True))
