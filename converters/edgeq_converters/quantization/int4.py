"""Choose which operations get 4-bit weights: as many as keep a target SQNR at the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.ranges import TensorRange, calibrated_ranges
from edgeq_converters.data.partition import Fold, HeldOutSamples
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, kernels, tflite_file
from edgeq_converters.graph.cost import obstacle
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.quantization import weight_clipping
from edgeq_converters.quantization.autotune import verdict
from edgeq_converters.quantization.autotune.judging import Judge
from edgeq_converters.quantization.autotune.making import PLAINEST, Candidate, Maker
from edgeq_converters.quantization.backends import litert
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.values import Caution, Claim, Scheme

_POOR_DB = 15.0
"""SQNR at the logits below which a classifier's answers change too often."""

_TRIED_SAMPLES = 48
_TRIED_ROWS = 4096
"""Samples, and outputs of each layer, on which a trial is corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedOperation:
    """An operation whose weights may have four bits.

    Attributes:
        name: of its first output tensor.
        weights: tensor index of its weights.
        count: number of weights.
    """

    name: str
    weights: int
    count: int


def leaves_choice(recipe: Recipe) -> bool:
    """Return whether a recipe leaves open which operations get 4-bit weights."""
    return recipe.scheme is Scheme.INT4 and not recipe.int8_ops and recipe.int4_sqnr_db > 0


def choose(model: Model, fold: Fold, *, recipe: Recipe, step: Step) -> tuple[Recipe, tuple[str, ...]]:
    """Return (the recipe with its int8_ops, notes on the choice).

    Each operation is ranked by the noise that rounding its weights alone to 4 bits adds at the logits, for
    each byte that it saves. Starting with the quietest, as many are chosen as keep the target SQNR on
    the fold's held-out samples. The weights of each trial are corrected, unless the recipe excludes that.

    Args:
        model: a normalized float model.
        fold: ranges and corrections come from its samples to fit on. No later claim may count any of its
            samples.

    Raises:
        ConverterError: as the quantizer and LiteRT do.
    """
    every = int4_candidates(model)
    if not every:
        return recipe, ()
    judge = Judge(model, fold.held_out)

    def logits_db(made: Model) -> float:
        return verdict.logits_db(judge.signal, judge.noise(made))

    histograms = observe(model, fold.fit, advance=step("calibrate", len(fold.fit)))
    ranges = calibrated_ranges(model, histograms, calibrator=PLAINEST)
    builder = _Builder(model, every, ranges)
    maker = Maker(model, fold.fit, recipe=recipe, fixed_ranges=lambda _: {}, histograms=histograms)
    correct = recipe.bias_correction is not Switch.OFF and not obstacle(model)
    plain = Candidate(calibrator=PLAINEST)

    def holds(few: Sequence[WeightedOperation]) -> bool:
        made = builder.build(few)
        if correct:
            made = maker.corrected(plain, made, samples=_TRIED_SAMPLES, rows=_TRIED_ROWS)
        return logits_db(made) >= recipe.int4_sqnr_db

    running, refused = builder.running()
    advance = step("choose 4-bit weights", len(running))
    noise: dict[str, float] = {}
    for each in running:
        noise[each.name] = 10 ** (-logits_db(_rounded(model, each)) / 10)
        advance(1)
    order = sorted(running, key=lambda each: (noise[each.name] / each.count, each.name))
    count = most_that_hold(order, holds)
    chosen = {each.name for each in order[:count]}
    int8_ops = tuple(each.name for each in every if each.name not in chosen)
    share = sum(each.count for each in order[:count]) / sum(each.count for each in every)
    note = (
        f"4-bit weights in {count} of {len(every)} operations ({share:.0%} of their weights): as many as keep"
        f" {recipe.int4_sqnr_db:g} dB at the logits on held-out samples; int4_sqnr_db sets the target, and"
        " edgeq tune --qat --scheme int4 trains all of them for 4 bits"
    )
    return replace(recipe, int8_ops=int8_ops), (note, *_reasons(refused))


def _reasons(refused: Mapping[str, str]) -> list[str]:
    """Return a note for each reason why operations cannot have 4-bit weights.

    Args:
        refused: {name of an operation: reason}.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        f"8-bit weights in `{names[0]}`{f' and {len(names) - 1} more' if names[1:] else ''}: {reason}"
        for reason, names in by_reason.items()
    ]


def warn_if_poor(
    model: Model, quantized: Model, samples: Samples | None, *, claim: Claim | None
) -> tuple[str, ...]:
    """Return a warning if a model with 4-bit weights is far from its float model; else nothing.

    Args:
        claim: what it reaches on held-out samples; without one, the samples that it was calibrated on count.
    """
    has_int4 = any(tflite_file.type_name(tensor) == "INT4" for tensor in quantized.graph.tensors)
    if samples is None or not has_int4:
        return ()
    if claim is None:
        judge = Judge(model, HeldOutSamples(samples))  # not held out: nothing was
        reached = verdict.logits_db(judge.signal, judge.noise(quantized))
    else:
        reached = claim.logits_db
    if reached >= _POOR_DB:
        return ()
    return (
        Caution(
            f"4-bit weights leave {reached:.1f} dB at the logits (below {_POOR_DB:g} dB, answers change too"
            " often): raise int4_sqnr_db to keep more operations int8, or train the Keras model for them with"
            " edgeq tune --qat --scheme int4"
        ),
    )


def int4_candidates(model: Model) -> tuple[WeightedOperation, ...]:
    """Return the operations that the quantizer can give 4-bit weights, in order of execution."""
    graph = model.graph
    candidates = []
    for operator in graph.operators:
        if tflite_file.op_name(model.parsed, operator) not in litert.INT4_OPS:
            continue
        weights = int(operator.inputs[1])
        tensor = graph.tensors[weights]
        if tflite_file.is_constant(model.parsed, tensor) and tflite_file.type_name(tensor) == "FLOAT32":
            name = tflite_file.operation_name(graph, operator)
            candidates.append(WeightedOperation(name=name, weights=weights, count=int(np.prod(tensor.shape))))
    return tuple(candidates)


def most_that_hold(
    order: Sequence[WeightedOperation], holds: Callable[[Sequence[WeightedOperation]], bool]
) -> int:
    """Return the largest number of leading operations that hold; if some number fails, all larger ones do."""
    low, high = 0, len(order)
    if holds(order):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if holds(order[:middle]):
            low = middle
        else:
            high = middle
    return low


class _Builder:
    """Builds models with some operations in 4 bits and plain ranges."""

    def __init__(
        self, model: Model, every: tuple[WeightedOperation, ...], ranges: Mapping[str, TensorRange]
    ) -> None:
        self._model, self._every, self._ranges = model, every, ranges

    def build(self, four_bits: Sequence[WeightedOperation]) -> Model:
        """Return the model; all other operations have 8-bit weights."""
        chosen = {each.name for each in four_bits}
        keep = tuple(each.name for each in self._every if each.name not in chosen)
        recipe = Recipe(scheme=Scheme.INT4, int8_ops=keep, io="int8")
        clipped = weight_clipping.clipped_ranges(self._model, bits=4, kinds=litert.INT4_OPS, keep=keep)
        return litert.quantize(self._model, recipe=recipe, ranges={**self._ranges, **clipped})

    def running(self) -> tuple[tuple[WeightedOperation, ...], dict[str, str]]:
        """Return the operations that all kernels of the runtime compute alike, and why the others are not."""
        if self._refusal(self._every) is None:
            return self._every, {}
        refusals = {each: self._refusal((each,)) for each in self._every}
        running = tuple(each for each, refusal in refusals.items() if refusal is None)
        return running, {each.name: refusal for each, refusal in refusals.items() if refusal is not None}

    def _refusal(self, four_bits: tuple[WeightedOperation, ...]) -> str | None:
        try:
            kernels.require_alike(self.build(four_bits))
        except ConverterError as error:
            return error.problem or str(error)
        return None


def _rounded(model: Model, operation: WeightedOperation) -> Model:
    """Return the float model with one operation's weights rounded to their 4-bit grid."""
    editor = Editor(model)
    tensor = editor.parsed.subgraphs[0].tensors[operation.weights]
    weights = edit.constant(editor.parsed, tensor)
    rows = weights.reshape(len(weights), -1)
    scale = (weight_clipping.clip_limits(rows, bits=4) / 7)[:, None]
    rounded = np.clip(np.rint(rows / scale), -7, 7) * scale
    edit.set_constant(editor.parsed, tensor, rounded.reshape(weights.shape).astype(np.float32))
    return editor.pack()
