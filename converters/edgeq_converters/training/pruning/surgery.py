"""Cuts channels out of a Keras model: a new model with smaller layers and the weights that stay."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning.channel_choice import kept
from edgeq_converters.training.pruning.channel_flow import SOURCES, ChannelFlow

Rows = npt.NDArray[np.int64]
# Which axis of which weight follows the layer's input (in) and output (out).
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


def _family(kind: str) -> str | None:
    if kind.startswith("Conv"):
        return "ConvTranspose" if kind.endswith("Transpose") else "Conv"
    if kind.startswith(("Separable", "Depthwise")):
        return kind[:9]
    return kind if kind in _AXES else None


def cut(model: Any, flow: ChannelFlow, gone: set[int]) -> Any:
    """Return a model without the channels `gone`; everything that stays has its old weights.

    A channel that is removed no longer reaches the layers after it: a constant that it gave them through
    its bias is gone too, which re-tuning mends.
    """
    config = deepcopy(model.get_config())
    shapes = _reshapes(model, flow, gone)
    for entry in config["layers"]:
        entry.pop("build_config", None)  # it would build the layer in its old size
        body, name = entry["config"], entry["config"].get("name")
        if name in flow.gives and entry["class_name"] in SOURCES:
            size = len(kept(flow, flow.gives[name], gone))
            body["units" if entry["class_name"] == "Dense" else "filters"] = size
        if name in shapes:
            body["target_shape"] = shapes[name]
    smaller = type(model).from_config(config)
    for layer in model.layers:
        if layer.weights:
            smaller.get_layer(layer.name).set_weights(_weights(layer, flow, gone))
    return smaller


def _weights(layer: Any, flow: ChannelFlow, gone: set[int]) -> list[npt.NDArray[Any]]:
    axes = _AXES.get(_family(type(layer).__name__) or "", {})
    rows: dict[str, Rows] = {}
    if layer.name in flow.takes:
        rows["in"] = kept(flow, flow.takes[layer.name], gone)
        many = int(getattr(layer, "depth_multiplier", 1))
        rows["in*m"] = kept(flow, np.repeat(flow.takes[layer.name], many), gone)
    if layer.name in flow.gives:
        rows["out"] = kept(flow, flow.gives[layer.name], gone)
    found = []
    for variable in layer.weights:
        value = np.asarray(variable)
        for axis, side in axes.get(variable.name, {}).items():
            if side in rows:
                value = np.take(value, rows[side], axis=axis)
        found.append(value)
    return found


def _reshapes(model: Any, flow: ChannelFlow, gone: set[int]) -> dict[str, list[int]]:
    """Return the new target of every Reshape whose channels shrink."""
    found = {}
    for call in keras_graph.calls(model):
        if call.kind == "Reshape" and call.name in flow.gives:
            shape = [int(size) for size in call.outputs[0].shape[1:]]
            found[call.name] = [*shape[:-1], len(kept(flow, flow.gives[call.name], gone))]
    return found
