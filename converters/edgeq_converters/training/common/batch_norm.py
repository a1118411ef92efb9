"""Batch normalization in training: fold it into the layer before it, or re-estimate its statistics."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.common.training_data import LabelledData

# {layer: the kernel's axis of output channels}; None for depthwise kernels
_FOLDABLE = {
    "Conv1D": -1,
    "Conv2D": -1,
    "Conv3D": -1,
    "Conv1DTranspose": -2,
    "Conv2DTranspose": -2,
    "Conv3DTranspose": -2,
    "Dense": -1,
    "DepthwiseConv1D": None,
    "DepthwiseConv2D": None,
}
_BATCH = 64
_MOST_BATCHES = 40


def fold(model: Any) -> Any:
    """Return an equivalent model with batch normalization folded into the layer directly before it.

    y = gamma * (w*x + b - mean) / sqrt(var + eps) + beta, Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
    Batch normalization elsewhere stays.
    """
    pairs = _pairs(model)
    if not pairs:
        return model
    config = deepcopy(model.get_config())
    before = {norm.name: layer.name for layer, norm in pairs}
    config["layers"] = [entry for entry in config["layers"] if entry["config"].get("name") not in before]
    for entry in config["layers"]:
        entry.pop("build_config", None)
        if entry["config"].get("name") in before.values():
            entry["config"]["use_bias"] = True
    folded = type(model).from_config(_rewired(config, before))
    changed = {layer.name: _folded_weights(layer, norm) for layer, norm in pairs}
    for layer in folded.layers:
        if layer.weights:
            layer.set_weights(changed.get(layer.name) or model.get_layer(layer.name).get_weights())
    return folded


def _pairs(model: Any) -> list[tuple[Any, Any]]:
    calls = keras_graph.calls(model)
    users: dict[int, int] = {}
    times: dict[str, int] = {}
    for call in calls:
        times[call.name] = times.get(call.name, 0) + 1
        for symbol in call.inputs:
            users[id(symbol)] = users.get(id(symbol), 0) + 1
    for symbol in keras_graph.symbols(model)[1]:
        users[id(symbol)] = users.get(id(symbol), 0) + 1
    makers = {id(symbol): call for call in calls for symbol in call.outputs}
    pairs = []
    for call in calls:
        maker = makers.get(id(call.inputs[0])) if call.inputs else None
        if (
            call.kind == "BatchNormalization"
            and maker is not None
            and maker.kind in _FOLDABLE
            and users[id(call.inputs[0])] == 1
            and times[call.name] == times[maker.name] == 1
            and getattr(maker.operation.activation, "__name__", "") == "linear"
            and getattr(maker.operation, "data_format", "channels_last") == "channels_last"
            and int(np.atleast_1d(call.operation.axis)[0]) in (-1, len(call.inputs[0].shape) - 1)
        ):
            pairs.append((maker.operation, call.operation))
    return pairs


def _folded_weights(layer: Any, norm: Any) -> list[Any]:
    mean = np.asarray(norm.moving_mean, np.float64)
    factor = 1.0 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else np.zeros_like(mean)
    kernel = np.asarray(layer.kernel, np.float64)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else np.zeros_like(mean)
    axis = _FOLDABLE[type(layer).__name__]
    if axis is None:  # depthwise: output channels are (input channel, multiplier), flattened
        spread = factor.reshape(kernel.shape[-2:])
    else:
        shape = [1] * kernel.ndim
        shape[axis] = -1
        spread = factor.reshape(shape)
    return [(kernel * spread).astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)]


def _rewired(value: Any, before: dict[str, str]) -> Any:
    """Return the configuration with each reference to a folded layer replaced by the layer before it."""
    if isinstance(value, dict):
        return {key: _rewired(item, before) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and isinstance(value[0], str) and list(value[1:]) == [0, 0]:
            return [before.get(value[0], value[0]), 0, 0]
        return [_rewired(item, before) for item in value]
    return value


def reestimate(model: Any, data: LabelledData, call: Callable[[list[Any]], list[Any]]) -> None:
    """Set the mean and variance of every batch normalization to their average over batches of the data.

    After a short training the moving averages still lag behind the weights.

    Args:
        call: the model in training mode.
    """
    every = model._flatten_layers()  # noqa: SLF001 # `layers` lacks those of nested models
    layers = [layer for layer in every if type(layer).__name__ == "BatchNormalization"]
    layers = [layer for layer in layers if layer.trainable]
    if not layers:
        return
    import tensorflow as tf

    momenta = [layer.momentum for layer in layers]
    starts = range(0, max(len(data) - _BATCH, 0) + 1, _BATCH)[:_MOST_BATCHES]
    for number, start in enumerate(starts):
        for layer in layers:
            layer.momentum = number / (number + 1)
        call([tf.constant(array[start : start + _BATCH]) for array in data.arrays])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
