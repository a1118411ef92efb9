"""A calibrator for each tensor: the one whose rounding and clipping of it alone the logits mind least.

The noise that a tensor adds to the logits is measured, not modelled: the float model runs on from its rounded
values. Noises of different tensors add up to first order, so that each tensor can be decided alone; what
shares a scale is decided together. Related: the ranking by "only this one quantized" of AIMET's automatic
mixed precision, arXiv 2302.05397, used here for ranges instead of precisions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration import observe
from edgeq_converters.calibration.calibrators import calibrator_of
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.qparams import Grid, Range
from edgeq_converters.calibration.scale_groups import groups
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, inference, logits, tflite_file
from edgeq_converters.graph.cost import macs
from edgeq_converters.graph.executor import Walk

Array = npt.NDArray[Any]
WHOLE = ("minmax", "percentile:99.999", "percentile:99.99", "mse")
"""What is tried for all tensors at once, too."""
SHORT = ("clip:0.85", "clip:0.7", "clip:0.55")
"""What is tried for single tensors only: the logits bear more clipping in some than in all."""
NAMES = (*WHOLE, *SHORT)
FEW = ("minmax", "percentile:99.99", "mse", "clip:0.7")
"""What is tried where a run of the model is expensive."""

_AS_GOOD = 1.1
"""Noises that differ by less than this factor are taken for equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was found.

    Attributes:
        calibrators: by tensor.
        noise: of each calibrator of `WHOLE` taken for all tensors, as a share of the logits' power.
        least: the noise of `calibrators`.
    """

    calibrators: Mapping[str, str]
    noise: Mapping[str, float]
    least: float


def choose(
    data: bytes,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    *,
    names: Sequence[str],
    grid: Grid,
    subject: str,
) -> Choice:
    """Return the calibrator of each activation of a float model.

    Args:
        histograms: of the activations.
        samples: what the noise is measured on; a handful is enough where the logits are many.
        names: the calibrators that are tried; of those that are as good the one of the widest range is taken.

    Raises:
        ConverterError: EQ303 when an operation does not run alone.
    """
    cut = logits.cut(data, subject=subject)
    model = tflite_file.parse(cut.data, subject=subject)
    deciding = groups(model)
    candidates = {
        key: [range_of(key, histograms, calibrator=name, grid=grid) for name in names]
        for key in set(deciding.values())
        if all(histograms[name].total for name in key)
    }
    noise = {key: np.zeros(len(names)) for key in candidates}
    for name, found in _noises(model, deciding, candidates, samples, grid=grid, subject=subject):
        noise[deciding[name]] += found
    totals = np.sum(list(noise.values()), axis=0) if noise else np.zeros(len(names))
    best = {key: names[_widest(candidates[key], found)] for key, found in noise.items()}
    return Choice(
        calibrators={name: best[key] for name, key in deciding.items() if key in best},
        noise={name: float(totals[place]) for place, name in enumerate(names) if name in WHOLE},
        least=float(sum(found.min() for found in noise.values())),
    )


def _widest(tried: Sequence[Range], noise: Array) -> int:
    # Data from elsewhere reaches further than the samples: where two are as good, the wider one is better.
    good = [place for place in range(len(tried)) if noise[place] <= noise.min() * _AS_GOOD]
    return max(good, key=lambda place: tried[place][1] - tried[place][0])


def range_of(
    names: Sequence[str], histograms: Mapping[str, Histogram], *, calibrator: str, grid: Grid
) -> Range:
    """Return the range that holds what a calibrator says of each of some tensors."""
    found = [calibrator_of(calibrator)(histograms[name], grid) for name in names]
    return min(low for low, _ in found), max(high for _, high in found)


def ranges(
    data: bytes,
    histograms: Mapping[str, Histogram],
    calibrators: Mapping[str, str],
    *,
    grid: Grid,
    subject: str,
) -> observe.Ranges:
    """Return {tensor: {min, max}} by each tensor's own calibrator; min/max where none was chosen."""
    found = observe.ranges(data, histograms, calibrator="minmax", subject=subject, grid=grid)
    deciding = groups(tflite_file.parse(data, subject=subject))
    for name, calibrator in calibrators.items():
        if name in found:
            low, high = range_of(deciding[name], histograms, calibrator=calibrator, grid=grid)
            found[name] = {
                "min": np.full_like(found[name]["min"], low),
                "max": np.full_like(found[name]["max"], high),
            }
    return found


def _noises(
    model: Any,
    deciding: Mapping[str, tuple[str, ...]],
    candidates: Mapping[tuple[str, ...], Sequence[Range]],
    samples: Samples,
    *,
    grid: Grid,
    subject: str,
) -> Iterator[tuple[str, Array]]:
    """Yield (tensor, the noise at the logits of each candidate range of this tensor)."""
    graph = model.subgraphs[0]
    outputs = [int(i) for i in graph.outputs]
    walk = Walk(model, samples, subject=subject)
    threads = min(os.cpu_count() or 1, 4) if macs(model) > 50_000_000 else 1
    tail = _Tail(model, 0, walk, outputs, threads=threads, subject=subject)
    wanted = [array.astype(np.float64) for array in tail.run({})]
    power = [max(float(np.square(array).sum()), 1e-30) for array in wanted]

    def measured(indices: Sequence[int], position: int) -> Iterator[tuple[str, Array]]:
        tail: _Tail | None = None
        for index in indices:
            name = tflite_file.tensor_name(graph.tensors[index])
            tried = candidates.get(deciding.get(name, ()))
            if tried is None or index not in walk.values:
                continue
            if tail is None:
                tail = _Tail(model, position, walk, outputs, threads=threads, subject=subject)
            met: dict[Range, float] = {}
            for low, high in tried:
                if (low, high) not in met:
                    values = walk.values[index]
                    rounded = grid.rounded(values.astype(np.float64), low, high).astype(np.float32)
                    got = tail.run({index: rounded})
                    met[low, high] = float(
                        np.mean(
                            [
                                np.square(one - other).sum() / whole
                                for one, other, whole in zip(got, wanted, power, strict=True)
                            ]
                        )
                    )
            yield name, np.array([met[pair] for pair in tried])

    yield from measured([int(i) for i in graph.inputs], 0)
    for position, operator in enumerate(graph.operators):
        walk.step()
        yield from measured([int(i) for i in operator.outputs], position + 1)


class _Tail:
    """The rest of a model from a position on, run from the walk's values with some of them replaced."""

    def __init__(
        self, model: Any, position: int, walk: Walk, outputs: Sequence[int], *, threads: int, subject: str
    ) -> None:
        self._walk, self._outputs, self._subject = walk, outputs, subject
        operators = model.subgraphs[0].operators[position:]
        made = {int(i) for operator in operators for i in operator.outputs}
        read = {i for operator in operators for i in tflite_file.tensor_indices(operator)}
        self._live = sorted(index for index in walk.values if index in read)
        self._made = [index for index in outputs if index in made]
        self._interpreter: Any = None
        if self._made:
            data = edit.part(model, operators, self._live, self._made)
            self._interpreter = inference.open_interpreter(data, subject=subject, threads=threads)
            self._sources = [detail["index"] for detail in self._interpreter.get_input_details()]
            self._targets = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self, replaced: Mapping[int, Array]) -> list[Array]:
        """Return the model's outputs, (batches, *tensor shape) each."""
        values = {**self._walk.values, **replaced}
        found: dict[int, Array] = {index: values[index] for index in self._outputs if index in values}
        if self._interpreter is None:
            return [found[index] for index in self._outputs]
        rows: list[list[Array]] = []
        fed = [values[index] for index in self._live]
        for number in range(len(fed[0])):
            inference.invoke(
                self._interpreter, self._sources, [array[number] for array in fed], subject=self._subject
            )
            rows.append([self._interpreter.get_tensor(target) for target in self._targets])
        for place, index in enumerate(self._made):
            found[index] = np.stack([row[place] for row in rows])
        return [found[index] for index in self._outputs]
