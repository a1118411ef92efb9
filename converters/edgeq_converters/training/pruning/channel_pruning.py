"""Channel pruning: rank channels by importance, choose which to remove, and rebuild the Keras model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning.channel_graph import SOURCES, ChannelGraph, Channels, trace

Rows = npt.NDArray[np.int64]
_OUTPUT_AXIS = {"Conv1DTranspose": -2, "Conv2DTranspose": -2, "Conv3DTranspose": -2}
# {family: {weight: {axis: which side of the layer it follows}}}
_AXES: Mapping[str, Mapping[str, Mapping[int, str]]] = {
    "Conv": {"kernel": {-2: "in", -1: "out"}, "bias": {0: "out"}},
    "ConvTranspose": {"kernel": {-1: "in", -2: "out"}, "bias": {0: "out"}},
    "Separable": {
        "depthwise_kernel": {-2: "in"},
        "pointwise_kernel": {-2: "in*m", -1: "out"},
        "bias": {0: "out"},
    },
    "Depthwise": {"kernel": {-2: "in"}, "bias": {0: "out"}},
    "Dense": {"kernel": {0: "in", 1: "out"}, "bias": {0: "out"}},
    "BatchNormalization": {name: {0: "out"} for name in ("gamma", "beta", "moving_mean", "moving_variance")},
    "PReLU": {"alpha": {-1: "out"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedModel:
    """A model with fewer channels.

    Attributes:
        layers: {layer: (channels before, channels after)} of the layers that lost output channels.
        unpruned: {layer: why its channels stayed}.
    """

    model: Any
    layers: dict[str, tuple[int, int]]
    unpruned: dict[str, str]


def prune(model: Any, ratio: float, *, subject: str) -> PrunedModel:
    """Return the model without the least important `ratio` of each group of channels.

    Raises:
        ConverterError: EQ316 when no channel can be removed.
    """
    graph = trace(model)
    producers = [
        call.name for call in keras_graph.calls(model) if call.kind in SOURCES and call.name in graph.writes
    ]
    producers = list(dict.fromkeys(producers))
    removed = choose(graph, producers, importance(model, producers), ratio)
    layers = {
        name: (len(graph.writes[name]), len(remaining(graph, graph.writes[name], removed)))
        for name in producers
    }
    layers = {name: sizes for name, sizes in layers.items() if sizes[0] != sizes[1]}
    if not layers:
        raise nothing_to_prune(subject, graph.unpruned)
    return PrunedModel(model=rebuild(model, graph, removed), layers=layers, unpruned=graph.unpruned)


def nothing_to_prune(subject: str, unpruned: Mapping[str, str]) -> ConverterError:
    """Return the error for a model without anything to prune."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(unpruned.items())[:3])
    return ConverterError(
        "EQ316",
        subject,
        f"nothing in the model can be pruned ({reasons or 'it has no convolution and no dense layer'})",
        hint="leave --prune out",
    )


def importance(model: Any, producers: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Return {layer: importance of each output channel}, normalized to mean one in each layer.

    The L1 norm of the channel's filter (Li et al., arXiv 1608.08710), times |gamma| / sqrt(variance) where
    batch normalization follows directly (the slimming factor of Liu et al., arXiv 1708.06519).
    """
    calls = keras_graph.calls(model)
    scales = _batch_norm_scales(calls)
    by_layer: dict[str, npt.NDArray[np.float64]] = {}
    for call in calls:
        if call.name not in producers or call.name in by_layer:
            continue
        kernel = _kernel(call.operation)
        axis = _OUTPUT_AXIS.get(call.kind, -1) % kernel.ndim
        norm = np.abs(kernel).sum(axis=tuple(i for i in range(kernel.ndim) if i != axis))
        norm = norm * scales.get(id(call.outputs[0]), 1.0)
        by_layer[call.name] = norm / max(float(norm.mean()), 1e-30)
    return by_layer


def _kernel(layer: Any) -> npt.NDArray[np.float64]:
    name = "pointwise_kernel" if hasattr(layer, "pointwise_kernel") else "kernel"
    return np.asarray(getattr(layer, name), np.float64)


def _batch_norm_scales(calls: Sequence[keras_graph.Call]) -> dict[int, npt.NDArray[np.float64]]:
    scales = {}
    for call in calls:
        if call.kind == "BatchNormalization":
            layer = call.operation
            deviation = np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
            gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(deviation)
            scales[id(call.inputs[0])] = np.abs(gamma) / deviation
    return scales


def groups(graph: ChannelGraph, producers: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Return {(layers): roots of the channels that these layers produce together and that may be removed}.

    Two layers that are added share their channels. Where a concatenation of two layers is added to a third,
    each half is shared by another pair. The reason why a layer is in no group is added to `graph.unpruned`.
    """
    by_root: dict[int, list[str]] = {}
    for name in producers:
        for root in dict.fromkeys(map(int, graph.channels.roots(graph.writes[name]))):
            by_root.setdefault(root, []).append(name)
    by_layers: dict[tuple[str, ...], list[int]] = {}
    for root, names in sorted(by_root.items()):
        if not graph.channels.is_fixed(root):
            by_layers.setdefault(tuple(names), []).append(root)
    by_layers = {names: roots for names, roots in by_layers.items() if len(roots) > 1}
    grouped = {name for names in by_layers for name in names}
    for name in producers:
        if name not in grouped:
            graph.unpruned.setdefault(
                name, "its channels are the model's output or feed an unsupported layer"
            )
    return by_layers


def choose(
    graph: ChannelGraph,
    producers: Sequence[str],
    importance: Mapping[str, npt.NDArray[np.float64]],
    ratio: float,
) -> set[int]:
    """Return the roots of the channels to remove: `ratio` of each group, and never a whole group.

    Args:
        producers: the layers that produce channels, in graph order.
        importance: {layer: one figure a channel}, comparable between layers.
    """
    removed: set[int] = set()
    for names, roots in groups(graph, producers).items():
        total = dict.fromkeys(roots, 0.0)
        for name in names:
            for root, value in zip(graph.channels.roots(graph.writes[name]), importance[name], strict=True):
                if int(root) in total:
                    total[int(root)] += float(value)
        # The number breaks ties, so that equal channels give the same choice on every machine.
        ranked = sorted(roots, key=lambda root: (total[root], root))
        removed.update(ranked[: min(round(len(roots) * ratio), len(roots) - 1)])
    return removed


def remaining(graph: ChannelGraph, channels: Channels, removed: set[int]) -> Rows:
    """Return the positions in `channels` that stay."""
    return np.flatnonzero([int(root) not in removed for root in graph.channels.roots(channels)])


def rebuild(model: Any, graph: ChannelGraph, removed: set[int]) -> Any:
    """Return a smaller model without the channels `removed`; the remaining weights keep their values.

    A removed channel no longer adds its constant (the bias after its activation) to the layers behind it.
    Re-tuning compensates for that.
    """
    config = deepcopy(model.get_config())
    shapes = _reshape_targets(model, graph, removed)
    for entry in config["layers"]:
        entry.pop("build_config", None)  # it would build the layer with its old size
        body, name = entry["config"], entry["config"].get("name")
        if name in graph.writes and entry["class_name"] in SOURCES:
            size = len(remaining(graph, graph.writes[name], removed))
            body["units" if entry["class_name"] == "Dense" else "filters"] = size
        if name in shapes:
            body["target_shape"] = shapes[name]
    smaller = type(model).from_config(config)
    for layer in model.layers:
        if layer.weights:
            smaller.get_layer(layer.name).set_weights(_remaining_weights(layer, graph, removed))
    return smaller


def _family(kind: str) -> str | None:
    if kind.startswith("Conv"):
        return "ConvTranspose" if kind.endswith("Transpose") else "Conv"
    if kind.startswith(("Separable", "Depthwise")):
        return kind[:9]
    return kind if kind in _AXES else None


def _remaining_weights(layer: Any, graph: ChannelGraph, removed: set[int]) -> list[npt.NDArray[Any]]:
    axes = _AXES.get(_family(type(layer).__name__) or "", {})
    rows: dict[str, Rows] = {}
    if layer.name in graph.reads:
        rows["in"] = remaining(graph, graph.reads[layer.name], removed)
        many = int(getattr(layer, "depth_multiplier", 1))
        rows["in*m"] = remaining(graph, np.repeat(graph.reads[layer.name], many), removed)
    if layer.name in graph.writes:
        rows["out"] = remaining(graph, graph.writes[layer.name], removed)
    weights = []
    for variable in layer.weights:
        value = np.asarray(variable)
        for axis, side in axes.get(variable.name, {}).items():
            if side in rows:
                value = np.take(value, rows[side], axis=axis)
        weights.append(value)
    return weights


def _reshape_targets(model: Any, graph: ChannelGraph, removed: set[int]) -> dict[str, list[int]]:
    """Return the new target shape of every Reshape with fewer channels."""
    targets = {}
    for call in keras_graph.calls(model):
        if call.kind == "Reshape" and call.name in graph.writes:
            shape = [int(size) for size in call.outputs[0].shape[1:]]
            targets[call.name] = [*shape[:-1], len(remaining(graph, graph.writes[call.name], removed))]
    return targets
