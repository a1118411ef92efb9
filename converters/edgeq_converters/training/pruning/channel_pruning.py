"""Channel pruning: choose the least important channels of each group and rebuild the Keras model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.common.model_copy import flattened
from edgeq_converters.training.pruning.attention_rules import HEADS
from edgeq_converters.training.pruning.channel_graph import trace
from edgeq_converters.training.pruning.channels import ChannelGraph
from edgeq_converters.training.pruning.importance import Figures, importance
from edgeq_converters.training.pruning.rebuild import rebuild, zeroed
from edgeq_converters.training.settings import Criterion

_TOLERANCE = 1e-3  # of the largest output; float32 sums of many terms differ by their order
_SAMPLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The part of each group of channels to remove.

    Attributes:
        heads: the part of attention heads.
        progress: how far this round goes, above 0 and up to 1: each round removes the same part of what the
            one before left.
        sizes: {(layers): number of their channels before the first round}; empty in the first.
    """

    channels: float
    heads: float
    progress: float = 1.0
    sizes: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def count(self, units: tuple[str, ...], left: int) -> int:
        """Return how many channels of a group to remove, of which `left` may still go."""
        share = self.heads if all(unit.endswith(f" {HEADS}") for unit in units) else self.channels
        if self.progress < 1.0:
            share = 1.0 - (1.0 - share) ** self.progress
        size = self.sizes.get(units, left)
        return max(0, round(size * share) - (size - left))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedModel:
    """A model with fewer channels.

    Attributes:
        layers: {layer: (channels before, channels after)} of what lost channels; the heads of an attention
            layer count apart, as `attention heads`.
        unpruned: {layer: why its channels stayed}.
        sizes: {(layers): number of their channels that could go}.
    """

    model: Any
    layers: dict[str, tuple[int, int]]
    unpruned: dict[str, str]
    sizes: dict[tuple[str, ...], int]


def prune(
    model: Any,
    shares: Shares,
    *,
    criterion: Criterion,
    samples: Sequence[npt.NDArray[Any]],
    subject: str,
) -> PrunedModel:
    """Return the model without the least important channels of each group.

    Args:
        samples: a few samples of each input, on which the pruned model is compared with the original one with
            the same channels set to zero.

    Raises:
        ConverterError: EQ316 no channel of the model can go, EQ338 the smaller model computes something
            else.
    """
    model = flattened(model)
    graph = trace(model)
    removed = choose(graph, importance(model, graph, criterion), shares)
    stay = {unit: graph.channels.remaining(made, removed) for unit, made in graph.units().items()}
    layers = {unit: (len(made), len(stay[unit])) for unit, made in graph.units().items()}
    layers = {unit: sizes for unit, sizes in layers.items() if sizes[0] != sizes[1]}
    unpruned = {**graph.unpruned, **_reasons(graph)}
    sizes = {units: len(roots) for units, roots in groups(graph).items()}
    if not sizes:
        raise nothing_to_prune(subject, unpruned)
    try:
        smaller = rebuild(model, graph, removed)
    except ValueError as error:
        short = " ".join(str(error).split())[:160]
        raise _unusable(subject, f"the pruned model cannot be built ({short})") from error
    _require_same(zeroed(model, graph, removed), smaller, samples, subject)
    return PrunedModel(model=smaller, layers=layers, unpruned=unpruned, sizes=sizes)


def _require_same(zero: Any, smaller: Any, samples: Sequence[npt.NDArray[Any]], subject: str) -> None:
    import keras

    inputs = [array[:_SAMPLES] for array in samples]

    def outputs(model: Any) -> list[npt.NDArray[Any]]:
        packed = keras.tree.pack_sequence_as(keras_graph.structures(model)[0], inputs)
        return [np.asarray(out, np.float64) for out in keras.tree.flatten(model(packed, training=False))]

    for one, other in zip(outputs(zero), outputs(smaller), strict=True):
        far = float(np.abs(one - other).max(initial=0.0))
        if not far <= _TOLERANCE * max(float(np.abs(one).max(initial=0.0)), 1e-3):
            raise _unusable(subject, f"the pruned model computes something else (by {far:.3g})")


def _unusable(subject: str, problem: str) -> ConverterError:
    return ConverterError("EQ338", subject, problem, hint="use --prune magnitude:0.8, or leave --prune out")


def nothing_to_prune(subject: str, unpruned: Mapping[str, str]) -> ConverterError:
    """Return the error for a model without anything to prune."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(unpruned.items())[:3])
    return ConverterError(
        "EQ316",
        subject,
        f"nothing in the model can be pruned ({reasons or 'it has no layer with channels'})",
        hint="leave --prune out",
    )


def groups(graph: ChannelGraph) -> dict[tuple[str, ...], list[int]]:
    """Return {(layers): roots of the channels that these layers make together and that may be removed}.

    Two layers that are added share their channels. Where a concatenation of two layers is added to a third,
    each half is shared by another pair.
    """
    by_root: dict[int, list[str]] = {}
    for unit, channels in graph.units().items():
        for root in dict.fromkeys(map(int, graph.channels.roots(channels))):
            by_root.setdefault(root, []).append(unit)
    by_units: dict[tuple[str, ...], list[int]] = {}
    for root, units in sorted(by_root.items()):
        if not graph.channels.is_fixed(root):
            by_units.setdefault(tuple(units), []).append(root)
    return {units: roots for units, roots in by_units.items() if len(roots) > 1}


def _reasons(graph: ChannelGraph) -> dict[str, str]:
    """Return {layer: why its channels stay} of those that are in no group."""
    grouped = {unit for units in groups(graph) for unit in units}
    reasons = {}
    for unit, channels in graph.units().items():
        if unit not in grouped:
            known = [graph.channels.reason(graph.channels.root(int(channel))) for channel in channels]
            reasons[unit] = next((why for why in known if why), "it has one channel")
    return reasons


def choose(graph: ChannelGraph, figures: Mapping[str, Figures], shares: Shares) -> set[int]:
    """Return the roots of the channels to remove: a share of each group, and never all channels of a tensor.

    Args:
        figures: {layer: importance of each channel}, comparable between layers.
    """
    by_group = groups(graph)
    total = {
        root: sum(figures[unit].get(root, 0.0) for unit in units)
        for units, roots in by_group.items()
        for root in roots
    }
    kept = _kept(graph, total)
    removed: set[int] = set()
    for units, roots in by_group.items():
        # The number breaks ties, so that equal channels give the same choice on every machine.
        ranked = sorted((root for root in roots if root not in kept), key=lambda root: (total[root], root))
        removed.update(ranked[: shares.count(units, len(roots))])
    return removed


def _kept(graph: ChannelGraph, total: Mapping[int, float]) -> set[int]:
    """Return the most important channel of each axis, which stays so that no tensor becomes empty."""
    kept = set()
    for channels in graph.never_empty():
        roots = {int(root) for root in graph.channels.roots(channels)}
        if roots and all(root in total for root in roots):
            kept.add(max(roots, key=lambda root: (total[root], -root)))
    return kept
