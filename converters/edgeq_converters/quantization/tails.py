"""Give the last operations of an output more bits where a slice of it stays poor in int8.

A tail is what lies between an output and its last layers with weights, then these layers, then the layers
before them. It computes in int16, so that the model stays full integer; where the recipe allows float
operations, also in float. Each tail is measured: how much the worst slice gains on the calibration samples,
and how much longer the model runs on this machine. The smallest that reaches the goal within the latency
limit is taken; if none does, the one that gains most, if that is much; else the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeq_converters import metrics
from edgeq_converters.data.samples import Samples, subset, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file, timing
from edgeq_converters.graph.cost import macs
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.progress import Step, ignore
from edgeq_converters.quantization import int16_regions
from edgeq_converters.quantization.backends import tensorflow
from edgeq_converters.quantization.columns import ColumnSizes
from edgeq_converters.quantization.named_operations import LAYERS
from edgeq_converters.quantization.quantize import Quantized, unexpected_float_ops
from edgeq_converters.recipe import Backend, Effort, Recipe, Tail
from edgeq_converters.values import Scheme

GOAL_DB = 25.0
"""SQNR that the worst slice shall have."""
SLOWEST = 1.05
"""Latency of a model with a tail over that of the model without one, at most."""
_WORTH_DB = 3.0
"""The least gain of a tail that does not reach the goal."""
_PROMISING_DB = 1.0
"""The least gain, before the correction, of a tail that is looked at further."""
_SAMPLES = 32
_DEPTH = 3
"""Layers with weights in a row that a tail may hold."""
_MOST_BYTES = 64 << 20
"""Of a model that is tried; a larger one takes long to quantize several times."""
_MOST_MACS = 0.05
"""Share of the model's multiplications above which a tail is not tried in int16: these layers take at least
twice as long there, because LiteRT has reference kernels for them on CPUs."""
_ROUNDS = 7
_OPEN = (Scheme.INT8, Scheme.INT8_MIXED)
"""Schemes for which a tail is chosen; 4-bit weights add noise in every layer, which no tail removes."""


Make = Callable[[Recipe, bool], Quantized]
"""Quantize under a recipe with the ranges that were chosen; with the correction, if they were corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A tail that was quantized.

    Attributes:
        gain_db: of the worst slice, before the correction.
        model: before the correction.
    """

    tail: Tail
    gain_db: float
    model: Model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """A tail that cannot be used.

    Attributes:
        reason: a clause, such as `litert-quantizer has no 16-bit form of HARD_SWISH`.
    """

    tail: Tail
    reason: str


def with_tail(recipe: Recipe, model: Model) -> Recipe:
    """Return the recipe with its tail among the operations that compute in int16 or float.

    Raises:
        ConverterError: EQ330 the tail names an operation that the model does not have.
    """
    tail = recipe.tail
    if tail is None or not tail.ops:
        return recipe
    names = {tflite_file.operation_name(model.graph, operator) for operator in model.graph.operators}
    if unknown := sorted(set(tail.ops) - names):
        raise ConverterError(
            "EQ330",
            model.subject,
            f"no operation has an output tensor that is called {unknown[0]!r}, which tail names",
            hint="remove `tail` from the recipe, so that it is chosen again",
        )
    if tail.type == "float32":
        return replace(recipe, float_ops=(*recipe.float_ops, *tail.ops))
    wide = int16_regions.operations(model, recipe) | set(tail.ops)
    return replace(recipe, int16_ops=tuple(sorted(wide)))


def improved(
    quantized: Quantized,
    *,
    model: Model,
    recipe: Recipe,
    samples: Samples,
    sizes: ColumnSizes,
    make: Make,
    step: Step,
) -> Quantized:
    """Return the quantized model, or one with a tail of more bits.

    Args:
        quantized: made of `model` under `recipe`.
        model: a float model with its outputs divided and levelled.
        samples: the calibration samples.
        sizes: that were divided out of its outputs.
        make: as `quantized` was made.
    """
    if recipe.tail is not None:
        if not recipe.tail.ops:
            return quantized
        made = make(with_tail(recipe, model), True)
        return replace(made, claim=quantized.claim, notes=(*quantized.notes, *made.notes))
    # TensorFlow's quantizer, which makes what litert-quantizer does not know, has no int16 inside int8.
    if quantized.backend == tensorflow.NAME or not _is_open(recipe, model):
        return quantized
    judge = _Judge(model, samples, sizes)
    before = judge.worst_db(quantized.model)
    poor = [position for position, value in enumerate(before) if value < GOAL_DB]
    candidates = _candidates(model, recipe, poor) if poor else []
    if not candidates:
        return quantized
    advance = step("try more bits in the last operations", len(candidates) + 1)
    plain = make(recipe, False).model
    tried, refused = [], []
    for tail in candidates:
        advance(1)
        one = _try(tail, recipe, model, make, judge, min(judge.worst_db(plain)))
        if isinstance(one, _Refused):
            refused.append(one)
        elif one.gain_db >= _PROMISING_DB:
            tried.append(one)
    chosen = _choose(quantized, tried, recipe, model, make, judge, plain) if tried else quantized
    return replace(chosen, notes=(*chosen.notes, *_reasons(refused)))


def _reasons(refused: Sequence[_Refused]) -> list[str]:
    """Return a note for each reason; a larger tail often fails for that of a smaller one."""
    first: dict[str, Tail] = {}
    for each in refused:
        first.setdefault(each.reason, each.tail)
    return [f"more bits in the last operations: no {tail}: {reason}" for reason, tail in first.items()]


def _is_open(recipe: Recipe, model: Model) -> bool:
    return (
        recipe.scheme in _OPEN
        and recipe.int16_ops is None
        and not recipe.float_ops
        and not recipe.ranges
        and recipe.effort is not Effort.QUICK
        and len(model.data) <= _MOST_BYTES
    )


def _try(
    tail: Tail, recipe: Recipe, model: Model, make: Make, judge: _Judge, plain_db: float
) -> _Tried | _Refused:
    own = with_tail(replace(recipe, tail=tail), model)
    try:
        made = make(replace(own, backend=Backend.LITERT), False).model
        if left := unexpected_float_ops(made, recipe=own):
            return _Refused(tail=tail, reason=f"{', '.join(left)} would compute in float")
        return _Tried(tail=tail, gain_db=min(judge.worst_db(made)) - plain_db, model=made)
    except ConverterError as error:  # such as no kernel for 16 bits: the next tail decides
        return _Refused(tail=tail, reason=error.problem or str(error))


def _choose(
    quantized: Quantized,
    tried: Sequence[_Tried],
    recipe: Recipe,
    model: Model,
    make: Make,
    judge: _Judge,
    plain: Model,
) -> Quantized:
    before = min(judge.worst_db(quantized.model))
    slower = timing.ratio(plain, [each.model for each in tried], rounds=_ROUNDS, seed=recipe.seed)
    best, best_db, best_note = quantized, before, ""
    for one, ratio in zip(tried, slower, strict=True):
        if ratio > SLOWEST:
            continue
        tail = one.tail
        made = make(with_tail(replace(recipe, tail=tail), model), True)
        reached = min(judge.worst_db(made.model))
        if reached <= best_db:
            continue
        best, best_db = replace(made, tail=tail), reached
        best_note = (
            f"{tail}: {reached:.1f} instead of {before:.1f} dB in the worst slice on the calibration samples,"
            f" {ratio:.2f} times the latency on this machine; the claim is without it"
        )
        if reached >= GOAL_DB:
            break
    if best_db < min(before + _WORTH_DB, GOAL_DB):
        fastest, ratio = min(zip(tried, slower, strict=True), key=lambda each: each[1])
        note = (
            f"more bits in the last operations were tried: {fastest.tail} would gain {fastest.gain_db:.1f} dB"
            f" in the worst slice before the correction, at {ratio:.2f} times the latency, and is not used"
        )
        return replace(quantized, tail=Tail(), notes=(*quantized.notes, note))
    return replace(best, claim=quantized.claim, notes=(best_note, *quantized.notes))


def _candidates(model: Model, recipe: Recipe, positions: Sequence[int]) -> list[Tail]:
    types = ("int16", "float32") if recipe.scheme is Scheme.INT8_MIXED else ("int16",)
    layers = _layers(model)
    tails: list[Tail] = []
    for depth in range(_DEPTH + 1):
        ops = operations_behind(model, positions, depth=depth)
        if not ops or (tails and tails[-1].ops == ops):
            continue
        if 2 * len(layers.intersection(ops)) > len(layers):  # no longer the end of a model, but most of it
            break
        slow = macs(model, only=ops) > _MOST_MACS * macs(model)
        tails += [Tail(type=each, ops=ops) for each in types if each != "int16" or not slow]
    return tails


def _layers(model: Model) -> frozenset[str]:
    """Return the names of the operations with weights."""
    return frozenset(
        tflite_file.operation_name(model.graph, operator)
        for operator in model.graph.operators
        if tflite_file.op_name(model.parsed, operator) in LAYERS
    )


def operations_behind(model: Model, positions: Collection[int], *, depth: int) -> tuple[str, ...]:
    """Return the names of the last operations before some outputs, in order of execution.

    From each output, all ways back are followed through `depth` layers with weights.
    """
    editor = GraphEditor(model.parsed)
    outputs = tflite_file.index_list(editor.graph.outputs)
    left = [(outputs[position], depth) for position in positions]
    deepest: dict[int, int] = {}
    while left:
        index, rest = left.pop()
        operator = editor.producer(index)
        if operator is None:
            continue
        rest -= editor.kind(operator) in LAYERS
        if rest < 0 or deepest.get(id(operator), -1) >= rest:
            continue
        deepest[id(operator)] = rest
        left += [(each, rest) for each in tflite_file.index_list(operator.inputs) if each >= 0]
    return tuple(
        tflite_file.operation_name(editor.graph, operator)
        for operator in editor.operators
        if id(operator) in deepest
    )


class _Judge:
    """Compares models with the float model: the worst slice of each output."""

    def __init__(self, floating: Model, samples: Samples, sizes: ColumnSizes) -> None:
        self._samples = subset(samples, _SAMPLES)
        self._reference = run_samples(floating, self._samples, advance=ignore)
        known: Mapping[int, int] = {
            position: int(np.argmax(factors.shape)) for position, factors in sizes.by_position.items()
        }
        self._axes = [
            known.get(position, metrics.slices_axis(values))
            for position, values in enumerate(self._reference)
        ]

    def worst_db(self, model: Model) -> list[float]:
        """Return the SQNR of the worst slice of each output."""
        values = run_samples(model, self._samples, advance=ignore)
        rows = zip(values, model.outputs, self._reference, self._axes, strict=True)
        return [
            metrics.output_powers(to_real(own, info), reference, axis=axis).worst_db
            for own, info, reference, axis in rows
        ]
