"""Which operations of a model get weights of four bits: as many as leave the logits a wanted SQNR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq_converters.calibration import observe
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.data.samples import Samples, in_one_order
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, kernels, tflite_file
from edgeq_converters.progress import Step
from edgeq_converters.quantization import weight_clipping
from edgeq_converters.quantization.autotune.scoring import Judge, split
from edgeq_converters.quantization.backends import litert
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

_FEWEST = 16
_POOR_DB = 15.0
"""SQNR at the logits below which a classifier's answers change too often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An operation whose weights may have four bits.

    Attributes:
        name: of its first output tensor.
        weights: index of its weights' tensor.
        count: how many weights it has.
    """

    name: str
    weights: int
    count: int


def open_to_choice(recipe: Recipe) -> bool:
    """Return whether a recipe leaves open which operations get weights of four bits."""
    return recipe.scheme is Scheme.INT4 and not recipe.int8_ops and recipe.int4_sqnr_db > 0


def choose(
    base: bytes,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    *,
    recipe: Recipe,
    subject: str,
    step: Step,
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with its int8_ops, and what there is to say about them.

    Operations are ranked by the noise that rounding their weights alone to four bits makes at the logits, for
    each byte that it saves. From the quietest on, as many are taken as leave the wanted SQNR on samples that
    were held out; the model is uncorrected there, so that correction comes on top.

    Args:
        base: a float .tflite with unique tensor names.
        histograms: of all samples.

    Raises:
        ConverterError: as the quantizer and LiteRT do.
    """
    model = tflite_file.parse(base, subject=subject)
    every = candidates(model)
    if len(samples) < _FEWEST or not every:
        return recipe, ()
    judge = Judge(base, _held_out(samples, recipe.seed), subject=subject)
    ranges = observe.ranges(base, histograms, calibrator="minmax", subject=subject)
    made = _Made(base, every, ranges, subject)
    running = made.running()
    advance = step("choose weights of four bits", len(running))
    noise: dict[str, float] = {}
    for each in running:
        noise[each.name] = 10 ** (-judge.score(_rounded(base, each, subject)) / 10)
        advance(1)
    order = sorted(running, key=lambda each: (noise[each.name] / each.count, each.name))
    count = _most(order, lambda few: judge.score(made.model(few)) >= recipe.int4_sqnr_db)
    kept = {each.name for each in order[:count]}
    int8 = tuple(each.name for each in every if each.name not in kept)
    weights = sum(each.count for each in order[:count]), sum(each.count for each in every)
    said = (
        f"weights of 4 bits in {count} of {len(every)} operations ({weights[0] / weights[1]:.0%} of their"
        f" weights): as many as leave {recipe.int4_sqnr_db:g} dB at the logits on held-out samples,"
        " uncorrected; int4_sqnr_db sets the level, and edgeq tune --qat --scheme int4 trains all for 4 bits"
    )
    return replace(recipe, int8_ops=int8), (said,)


def remark(base: bytes, made: bytes, samples: Samples | None, *, seed: int, subject: str) -> tuple[str, ...]:
    """Return a warning where a model with weights of four bits is far from its float model."""
    tensors = tflite_file.parse(made, subject=subject).subgraphs[0].tensors
    if samples is None or not any(tflite_file.type_name(tensor) == "INT4" for tensor in tensors):
        return ()
    reached = Judge(base, _held_out(samples, seed), subject=subject).score(made)
    if reached >= _POOR_DB:
        return ()
    return (
        f"weights of 4 bits leave {reached:.1f} dB at the logits (below {_POOR_DB:g} dB answers change too"
        " often): train the model for them by edgeq tune --qat --scheme int4, or keep more operations int8 by"
        " a higher int4_sqnr_db",
    )


def candidates(model: Any) -> tuple[Candidate, ...]:
    """Return the operations that the quantizer can give weights of four bits, in order of execution."""
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        if tflite_file.op_name(model, operator) not in litert.INT4_OPS:
            continue
        weights = int(operator.inputs[1])
        tensor = graph.tensors[weights]
        if tflite_file.is_constant(model, tensor) and tflite_file.type_name(tensor) == "FLOAT32":
            name = tflite_file.tensor_name(graph.tensors[operator.outputs[0]])
            found.append(Candidate(name=name, weights=weights, count=int(np.prod(tensor.shape))))
    return tuple(found)


def _most(order: Sequence[Candidate], holds: Callable[[Sequence[Candidate]], bool]) -> int:
    """Return the largest number of leading candidates that hold; more never hold where fewer do not."""
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


class _Made:
    """Makes models of some operations in four bits, with plain ranges."""

    def __init__(
        self, base: bytes, every: tuple[Candidate, ...], ranges: Mapping[str, Any], subject: str
    ) -> None:
        self._base, self._every, self._ranges, self._subject = base, every, ranges, subject

    def model(self, four_bits: Sequence[Candidate]) -> bytes:
        """Return the model; all others have eight bits."""
        chosen = {each.name for each in four_bits}
        keep = tuple(each.name for each in self._every if each.name not in chosen)
        recipe = Recipe(scheme=Scheme.INT4, int8_ops=keep, io="int8")
        clip = weight_clipping.clipped(
            self._base, bits=4, kinds=litert.INT4_OPS, keep=keep, subject=self._subject
        )
        return litert.quantize(
            self._base, recipe=recipe, ranges={**self._ranges, **clip}, subject=self._subject
        )

    def running(self) -> tuple[Candidate, ...]:
        """Return those that the runtime computes alike with all its kernels."""
        if self._runs(self._every):
            return self._every
        return tuple(each for each in self._every if self._runs((each,)))

    def _runs(self, four_bits: tuple[Candidate, ...]) -> bool:
        try:
            kernels.require_alike(self.model(four_bits), subject=self._subject)
        except ConverterError:
            return False  # what does not run keeps its eight bits
        return True


def _held_out(samples: Samples, seed: int) -> Samples:
    # The same samples in whatever order they came.
    return split(in_one_order(samples), seed=seed)[1]


def _rounded(base: bytes, candidate: Candidate, subject: str) -> bytes:
    """Return the float model with one operation's weights on their grid of four bits."""
    model = tflite_file.parse(base, subject=subject)
    tensor = model.subgraphs[0].tensors[candidate.weights]
    weights = edit.constant(model, tensor)
    rows = weights.reshape(len(weights), -1)
    scale = (weight_clipping.limits(rows, bits=4) / 7)[:, None]
    grid = np.clip(np.rint(rows / scale), -7, 7) * scale
    edit.set_constant(model, tensor, grid.reshape(weights.shape).astype(np.float32))
    return edit.pack(model)
