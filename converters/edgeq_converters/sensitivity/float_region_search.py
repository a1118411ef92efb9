"""Search float regions: leave more and more of the worst operations float, and revert those that do not help.

The ranking and the steps along it follow AIMET's automatic mixed precision (arXiv 2302.05397), the reverting
NNCF's greedy revert.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeq_converters.data import partition
from edgeq_converters.data.partition import Partition
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import postprocessing, tflite_file, validate
from edgeq_converters.graph.float_regions import Operation, fill_gaps, operations
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.progress import Advance, Step
from edgeq_converters.quantization.quantize import known_ops
from edgeq_converters.sensitivity import screening
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch, FloatRegionSet
from edgeq_converters.sensitivity.screening import CrossScreen

# Stands for infinity in records, which cannot hold it.
NO_NOISE_DB = 200.0
_ENDS = 6
_REVERTED = 3
_JOINED = 6
_CHEAP_WORK = 0.05
_HALF = 0.5
# The most a revert may cost, and the least that a step along the ranking must gain to be worth reverting.
_IDLE_DB = 0.2
# With fewer samples a third says too little: each half is then held out once.
_SPLIT_FROM = 30

FloatOps = frozenset[int]
Costs = Mapping[int, tuple[int, float]]


def search_float_regions(
    model: Model, samples: Samples, *, step: Step, calibrator: str, most: int = 256
) -> FloatRegionSearch:
    """Return the SQNR of many choices of operations that stay float: that of the worst slice at the logits.

    Of detections, what their post-processing reads is compared: it lists boxes in an order of its own.

    Args:
        model: a float .tflite.
        samples: the representative dataset; a third of the samples is held out of the calibration to compare
            on, and of fewer than 30, each half once.
        most: the most choices to measure along the ranking.

    Raises:
        ConverterError: EQ202 all samples are equal, EQ303, EQ304, EQ308, EQ309.
    """
    model = prepared(model)
    validate.require_float(model)
    head = postprocessing.detach(model).model
    parts = held_out_third(samples)
    total = sum(len(fold.fit) + len(fold.held_out) for fold in parts.folds)
    screen = screening.prepare_folds(head, parts, calibrator=calibrator, advance=step("calibrate", total))
    screen.quantize(())  # fails here if the quantizer refuses the whole model
    ops, names = screen.ops, [op.name for op in screen.ops]
    advance = step("quantize operations one by one", len(ops))
    alone = screen.worst_db([[*names[:i], *names[i + 1 :]] for i in range(len(ops))], advance=advance)
    known = known_ops()
    alone_db = {
        i: value
        for i, value in enumerate(alone)
        if value is not None and math.isfinite(value) and ops[i].op in known
    }
    ranking = sorted(alone_db, key=lambda i: (alone_db[i], i))
    results = _Results(screen)
    costs = _costs(screen)
    steps = list(_steps(ops, ranking, most))
    results.measure(steps, step("leave the worst operations float", len(steps)))
    joined = list(_join_tail(results, steps, costs))
    results.measure(joined, step("leave the end of the graph float too", len(joined)))
    for float_ops in _worth_reverting(results, [*steps, *joined], costs):
        _revert(results, float_ops, ranking, step)
    whole = operations(model)
    place_of = {op.name: op.index for op in whole}
    positions = [place_of[name] for name in names]
    return FloatRegionSearch(
        alone_db={positions[i]: value for i, value in alone_db.items()},
        ranking=tuple(positions[i] for i in ranking),
        after_logits=tuple(op.name for op in whole if op.name not in names),
        sets=tuple(
            FloatRegionSet(
                family=family,
                float_ops=tuple(names[i] for i in sorted(float_ops)),
                indices=tuple(positions[i] for i in sorted(float_ops)),
                sqnr_db=min(value, NO_NOISE_DB),
                added_bytes=sum(costs[i][0] for i in float_ops),
                work=sum(costs[i][1] for i in float_ops),
                borders=_borders(ops, float_ops),
            )
            for float_ops, (family, value) in results.by_float_ops.items()
        ),
        held_out=parts.held_out,
        notes=samples.notes,
    )


def held_out_third(samples: Samples) -> Partition:
    """Return the samples with a third of them held out; of few samples, each half once.

    Raises:
        ConverterError: EQ202 fewer than two different samples.
    """
    count = partition.distinct(samples)
    if count < 2:
        raise ConverterError(
            "EQ202",
            "the calibration data",
            expected="at least two different samples",
            got=f"{count}",
            hint="give 100 to 500 representative samples",
        )
    if count < _SPLIT_FROM:
        return partition.halves(samples, seed=0)
    return partition.split(samples, seed=0, share=1 / 3, most=count)


class _Results:
    """The SQNR of each choice, which is measured once."""

    def __init__(self, screen: CrossScreen) -> None:
        self._screen = screen
        self.by_float_ops: dict[FloatOps, tuple[str, float]] = {}

    def measure(self, choices: Sequence[tuple[str, FloatOps]], advance: Advance) -> None:
        names = [op.name for op in self._screen.ops]
        new = {
            float_ops: family for family, float_ops in reversed(choices) if float_ops not in self.by_float_ops
        }
        ordered = list(dict.fromkeys(float_ops for _, float_ops in choices if float_ops in new))
        advance(len(choices) - len(ordered))
        values = self._screen.worst_db(
            [[names[i] for i in float_ops] for float_ops in ordered], advance=advance
        )
        for float_ops, value in zip(ordered, values, strict=True):
            if value is not None:
                self.by_float_ops[float_ops] = (new[float_ops], value)

    def sqnr_db(self, float_ops: FloatOps) -> float:
        return self.by_float_ops[float_ops][1] if float_ops in self.by_float_ops else -math.inf


def _steps(ops: Sequence[Operation], ranking: Sequence[int], most: int) -> Iterator[tuple[str, FloatOps]]:
    yield "int8", frozenset()
    for count in _counts(len(ranking), most):
        yield "ranking", fill_gaps(ops, ranking[:count])
    for count in range(1, min(_ENDS, len(ops)) + 1):
        yield "tail", fill_gaps(ops, range(len(ops) - count, len(ops)))
        yield "head", fill_gaps(ops, range(count))


def _counts(total: int, most: int) -> list[int]:
    """Return 1, 2, 3, ... if that is at most `most` choices; else counts that grow geometrically."""
    if total <= most:
        return list(range(1, total + 1))
    return sorted({max(1, round(value)) for value in np.geomspace(1, total, most)})


def _join_tail(
    results: _Results, steps: Sequence[tuple[str, FloatOps]], costs: Costs
) -> Iterator[tuple[str, FloatOps]]:
    """Yield the first steps of the ranking joined with the end of the graph, if that is cheap and helps.

    The last operations often do little work but round the logits themselves.
    """
    least = results.sqnr_db(frozenset()) + _IDLE_DB
    tails = [
        float_ops
        for family, float_ops in steps
        if family == "tail" and results.sqnr_db(float_ops) >= least and _work(float_ops, costs) <= _CHEAP_WORK
    ]
    if not tails:
        return
    best = max(tails, key=lambda float_ops: (results.sqnr_db(float_ops), -len(float_ops)))
    prefixes = [float_ops for family, float_ops in steps if family == "ranking"]
    for float_ops in prefixes[:_JOINED]:
        yield "joined", float_ops | best


def _work(float_ops: FloatOps, costs: Costs) -> float:
    return sum(costs[i][1] for i in float_ops)


def _worth_reverting(
    results: _Results, steps: Sequence[tuple[str, FloatOps]], costs: Costs
) -> list[FloatOps]:
    """Return the choices that gain most over the one before, among those with at least half the work int8."""
    gains: list[tuple[float, FloatOps]] = []
    last = results.sqnr_db(frozenset())
    for family, float_ops in steps:
        if family in {"ranking", "joined"}:
            gains.append((results.sqnr_db(float_ops) - last, float_ops))
            last = results.sqnr_db(float_ops)
    best = sorted(gains, key=lambda gain: -gain[0])
    worth = [
        float_ops
        for gain, float_ops in best
        if gain >= _IDLE_DB and len(float_ops) > 1 and _work(float_ops, costs) <= _HALF
    ]
    return worth[:_REVERTED]


def _revert(results: _Results, float_ops: FloatOps, ranking: Sequence[int], step: Step) -> None:
    """Return operations to int8 while that costs almost nothing, the least sensitive first."""
    order = [i for i in reversed(ranking) if i in float_ops]
    order += sorted(float_ops.difference(order))
    advance = step("revert operations to int8", len(order))
    goal = results.sqnr_db(float_ops) - _IDLE_DB
    current = float_ops
    for i in order:
        smaller = current - {i}
        results.measure([("reverted", smaller)], advance)
        if smaller and results.sqnr_db(smaller) >= goal:
            current = smaller


def _borders(ops: Sequence[Operation], float_ops: Collection[int]) -> int:
    return sum((source in float_ops) != (op.index in float_ops) for op in ops for source in op.sources)


def _costs(screen: CrossScreen) -> Costs:
    """Return {operation: (bytes that float weights add, share of the multiplications)}."""
    model = screen.cut.model
    added: dict[int, int] = {}
    work: dict[int, float] = {}
    for op in screen.ops:
        operator = model.graph.operators[op.index]
        sizes = [
            len(model.parsed.buffers[tensor.buffer].data)
            for tensor in (model.graph.tensors[int(i)] for i in operator.inputs if i >= 0)
            if tflite_file.is_constant(model.parsed, tensor) and tflite_file.type_name(tensor) == "FLOAT32"
        ]
        largest = max(sizes, default=0)
        added[op.index] = largest - largest // 4
        work[op.index] = _multiplications(model.graph, operator, largest // 4, op.op)
    total = sum(work.values()) or 1.0
    return {i: (added[i], work[i] / total) for i in added}


def _multiplications(graph: Any, operator: Any, weights: int, op: str) -> float:
    """Return roughly how many multiplications an operation does for one sample.

    Args:
        weights: number of weights.
    """
    first = tflite_file.first_output(operator)
    shape = None if first is None else graph.tensors[first].shape
    out = float(np.prod([max(int(size), 1) for size in shape])) if shape is not None else 1.0
    if not weights or shape is None or not len(shape):
        return out
    channels = max(int(shape[-1]), 1)
    # A convolution uses each weight once at every position of the output.
    return weights * out / channels if "CONV" in op else float(weights)
