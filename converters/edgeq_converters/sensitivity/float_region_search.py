"""The walk over float islands: more and more of the worst stay float, and what is idle goes back to int8.

Ranking and prefix walk: AIMET's automatic mixed precision (arXiv 2302.05397); going back: NNCF's greedy
revert.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.float_regions import Operation, closed
from edgeq_converters.progress import Advance, Step
from edgeq_converters.quantization import quantize
from edgeq_converters.sensitivity import screening
from edgeq_converters.sensitivity.float_region_values import IslandSet, IslandWalk
from edgeq_converters.sensitivity.screening import Screen

# Stands for "no noise" in records, which have no infinity.
NO_NOISE_DB = 200.0
_ENDS = 6
_REVERTED = 3
_JOINED = 6
_CHEAP_WORK = 0.05
_HALF = 0.5
# What a revert may cost, and what a step along the ranking must bring to be looked at again.
_IDLE_DB = 0.2
# With fewer samples a split leaves too few on both sides; then the same samples do both.
_SPLIT_FROM = 30

Islands = frozenset[int]
Costs = Mapping[int, tuple[int, float]]


def walk(
    data: bytes, samples: Samples, *, subject: str, step: Step, calibrator: str, most: int = 256
) -> IslandWalk:
    """Return the SQNR of many choices of float islands.

    Args:
        data: a float .tflite.
        samples: representative samples; every third is held out of the calibration, to judge on.
        most: at most as many choices are measured on the way along the ranking.

    Raises:
        ConverterError: EQ303, EQ304, EQ308, EQ309.
    """
    data = tflite_file.normalized(data, subject=subject)
    whole = tflite_file.parse(data, subject=subject)
    tflite_file.require_float(whole, subject=subject)
    used, judged = split(samples)
    total = len(used) + len(judged)
    screen = screening.prepare(
        data, used, judged, calibrator=calibrator, subject=subject, advance=step("calibrate", total)
    )
    screen.quantized(())  # what refuses the whole model says so here
    ops, names = screen.ops, [op.name for op in screen.ops]
    advance = step("quantize operations one by one", len(ops))
    alone = screen.sqnr_db([[*names[:i], *names[i + 1 :]] for i in range(len(ops))], advance=advance)
    known = quantize.known_ops()
    measured = {
        i: value
        for i, value in enumerate(alone)
        if value is not None and math.isfinite(value) and ops[i].op in known
    }
    ranking = sorted(measured, key=lambda i: (measured[i], i))
    found = _Found(screen)
    costs = _costs(screen)
    steps = list(_steps(ops, ranking, most))
    found.measure(steps, step("walk along the ranking", len(steps)))
    both = list(_with_tail(found, steps, costs))
    found.measure(both, step("walk with the end kept float", len(both)))
    for chosen in _worth_reverting(found, [*steps, *both], costs):
        _revert(found, chosen, ranking, step)
    positions = [i for i in range(len(ops) + len(screen.cut.removed)) if i not in screen.cut.removed]
    graph = whole.subgraphs[0]
    after = tuple(
        tflite_file.tensor_name(graph.tensors[graph.operators[i].outputs[0]]) for i in screen.cut.removed
    )
    return IslandWalk(
        alone_db={positions[i]: value for i, value in measured.items()},
        ranking=tuple(positions[i] for i in ranking),
        after_logits=after,
        sets=tuple(
            IslandSet(
                family=family,
                float_ops=tuple(names[i] for i in sorted(kept)),
                indices=tuple(positions[i] for i in sorted(kept)),
                sqnr_db=min(value, NO_NOISE_DB),
                added_bytes=sum(costs[i][0] for i in kept),
                work=sum(costs[i][1] for i in kept),
                borders=_borders(ops, kept),
            )
            for kept, (family, value) in found.by_islands.items()
        ),
        held_out=len(judged),
        notes=samples.notes,
    )


def split(samples: Samples) -> tuple[Samples, Samples]:
    """Return (samples to calibrate with, every third sample, to judge on); all twice where they are few."""
    count = len(samples)
    if count < _SPLIT_FROM:
        return samples, samples
    held = np.arange(count) % 3 == 2

    def part(chosen: np.ndarray) -> Samples:
        return Samples(inputs=samples.inputs, arrays=tuple(array[chosen] for array in samples.arrays))

    return part(~held), part(held)


class _Found:
    """Every choice that was measured, each once."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.by_islands: dict[Islands, tuple[str, float]] = {}

    def measure(self, choices: Sequence[tuple[str, Islands]], advance: Advance) -> None:
        names = [op.name for op in self._screen.ops]
        fresh = {kept: family for family, kept in reversed(choices) if kept not in self.by_islands}
        ordered = [kept for _, kept in choices if kept in fresh]
        ordered = list(dict.fromkeys(ordered))
        advance(len(choices) - len(ordered))
        values = self._screen.sqnr_db([[names[i] for i in kept] for kept in ordered], advance=advance)
        for kept, value in zip(ordered, values, strict=True):
            if value is not None:
                self.by_islands[kept] = (fresh[kept], value)

    def sqnr_db(self, kept: Islands) -> float:
        return self.by_islands[kept][1] if kept in self.by_islands else -math.inf


def _steps(ops: Sequence[Operation], ranking: Sequence[int], most: int) -> Iterator[tuple[str, Islands]]:
    yield "int8", frozenset()
    for count in _counts(len(ranking), most):
        yield "ranking", closed(ops, ranking[:count])
    for count in range(1, min(_ENDS, len(ops)) + 1):
        yield "tail", closed(ops, range(len(ops) - count, len(ops)))
        yield "head", closed(ops, range(count))


def _counts(total: int, most: int) -> list[int]:
    """Return 1, 2, 3, ... where that is affordable, else steps that grow."""
    if total <= most:
        return list(range(1, total + 1))
    return sorted({max(1, round(value)) for value in np.geomspace(1, total, most)})


def _with_tail(
    found: _Found, steps: Sequence[tuple[str, Islands]], costs: Costs
) -> Iterator[tuple[str, Islands]]:
    """Yield the first steps of the ranking joined with the end of the graph, where that is cheap and helps.

    The last operations often do little work but make the logits' own rounding.
    """
    least = found.sqnr_db(frozenset()) + _IDLE_DB
    tails = [
        kept
        for family, kept in steps
        if family == "tail" and found.sqnr_db(kept) >= least and _work(kept, costs) <= _CHEAP_WORK
    ]
    if not tails:
        return
    best = max(tails, key=lambda kept: (found.sqnr_db(kept), -len(kept)))
    prefixes = [kept for family, kept in steps if family == "ranking"]
    for kept in prefixes[:_JOINED]:
        yield "joined", kept | best


def _work(kept: Islands, costs: Costs) -> float:
    return sum(costs[i][1] for i in kept)


def _worth_reverting(found: _Found, steps: Sequence[tuple[str, Islands]], costs: Costs) -> list[Islands]:
    """Return those choices that bring most over the one before, of those that leave half of the work int8."""
    gains: list[tuple[float, Islands]] = []
    last = found.sqnr_db(frozenset())
    for family, kept in steps:
        if family in {"ranking", "joined"}:
            gains.append((found.sqnr_db(kept) - last, kept))
            last = found.sqnr_db(kept)
    best = sorted(gains, key=lambda gain: -gain[0])
    worth = [
        kept for gain, kept in best if gain >= _IDLE_DB and len(kept) > 1 and _work(kept, costs) <= _HALF
    ]
    return worth[:_REVERTED]


def _revert(found: _Found, kept: Islands, ranking: Sequence[int], step: Step) -> None:
    """Put operations back to int8 as long as that costs next to nothing, the least sensitive first."""
    order = [i for i in reversed(ranking) if i in kept]
    order += sorted(kept.difference(order))
    advance = step("put idle operations back", len(order))
    goal = found.sqnr_db(kept) - _IDLE_DB
    current = kept
    for i in order:
        smaller = current - {i}
        found.measure([("reverted", smaller)], advance)
        if smaller and found.sqnr_db(smaller) >= goal:
            current = smaller


def _borders(ops: Sequence[Operation], kept: Collection[int]) -> int:
    return sum((source in kept) != (op.index in kept) for op in ops for source in op.sources)


def _costs(screen: Screen) -> Costs:
    """Return {operation: (bytes that float weights add, share of the multiplications)}."""
    graph = screen.model.subgraphs[0]
    added: dict[int, int] = {}
    work: dict[int, float] = {}
    for op in screen.ops:
        operator = graph.operators[op.index]
        sizes = [
            len(screen.model.buffers[tensor.buffer].data)
            for tensor in (graph.tensors[int(i)] for i in operator.inputs if i >= 0)
            if tflite_file.is_constant(screen.model, tensor) and tflite_file.type_name(tensor) == "FLOAT32"
        ]
        largest = max(sizes, default=0)
        added[op.index] = largest - largest // 4
        work[op.index] = _multiplications(graph, operator, largest // 4, op.op)
    total = sum(work.values()) or 1.0
    return {i: (added[i], work[i] / total) for i in added}


def _multiplications(graph: object, operator: object, weights: int, op: str) -> float:
    """Return about how many multiplications an operation does for one sample."""
    tensors = graph.tensors  # type: ignore[attr-defined] # the schema's classes have no types
    shape = tensors[operator.outputs[0]].shape  # type: ignore[attr-defined]
    out = float(np.prod([max(int(size), 1) for size in shape])) if shape is not None else 1.0
    if not weights:
        return out
    channels = max(int(shape[-1]), 1)
    # Each weight of a convolution is used once at every place of the output.
    return weights * out / channels if "CONV" in op else float(weights)
