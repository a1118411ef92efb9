"""Rules for layers with weights (convolutions, dense and recurrent layers, normalizations), and pooling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq_converters.training.common.keras_graph import Call
from edgeq_converters.training.pruning.channels import Channels, Labels
from edgeq_converters.training.pruning.tracer import (
    POINTWISE,
    Tracer,
    Unprunable,
    activation_of,
    channel_axis,
    require_weights,
    sized,
    why_mixed,
)

Flow = list[Labels | None]
Rule = Callable[[Tracer, Call, Flow], Flow]
"""(trace, call, labels of its inputs) -> labels of its outputs; raises `Unprunable`."""


def dense(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a Dense layer: it sums over the last axis."""
    require_weights(call, "kernel", "bias")
    units = trace.channels.new(int(call.operation.kernel.shape[1]))
    trace.cut(call, "kernel", 0, trace.read(inputs[0], call), reads=True)
    return _made(trace, call, units, "kernel", 1, "units", len(call.outputs[0].shape) - 1)


def convolution(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a convolution, grouped or not.

    In a grouped convolution all groups lose the channels of the same positions; where each group reads one
    channel, whole groups go.
    """
    require_weights(call, "kernel", "bias")
    layer = call.operation
    groups, axis = int(layer.groups), channel_axis(call)
    read = trace.read(inputs[0], call, 0, axis)
    filters = trace.channels.new(int(layer.kernel.shape[-1]))
    if groups == 1:
        trace.cut(call, "kernel", -2, read, reads=True)
    elif len(read) == groups:
        trace.channels.tie(np.repeat(read, len(filters) // groups), filters)
        trace.resize(call, "groups", lambda count: count(read), read)
    else:
        _tie_groups(trace, read, groups)
        _tie_groups(trace, filters, groups)
        trace.cut(call, "kernel", -2, read[: len(read) // groups], reads=True)
    return _made(trace, call, filters, "kernel", -1, "filters", axis)


def transposed_convolution(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a transposed convolution, whose kernel has its axes the other way round."""
    require_weights(call, "kernel", "bias")
    axis = channel_axis(call)
    filters = trace.channels.new(int(call.operation.kernel.shape[-2]))
    trace.cut(call, "kernel", -1, trace.read(inputs[0], call, 0, axis), reads=True)
    return _made(trace, call, filters, "kernel", -2, "filters", axis)


def depthwise_convolution(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a depthwise convolution: its outputs are the channels that it reads."""
    require_weights(call, "kernel", "bias")
    axis = channel_axis(call)
    read = trace.read(inputs[0], call, 0, axis)
    trace.cut(call, "kernel", -2, read)
    made = np.repeat(read, int(call.operation.depth_multiplier))
    trace.cut(call, "bias", 0, made)
    return [trace.activated(call, made, axis)]


def separable_convolution(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a depthwise and a pointwise convolution in one layer."""
    require_weights(call, "depthwise_kernel", "pointwise_kernel", "bias")
    layer, axis = call.operation, channel_axis(call)
    read = trace.read(inputs[0], call, 0, axis)
    filters = trace.channels.new(int(layer.pointwise_kernel.shape[-1]))
    trace.cut(call, "depthwise_kernel", -2, read)
    trace.cut(call, "pointwise_kernel", -2, np.repeat(read, int(layer.depth_multiplier)), reads=True)
    return _made(trace, call, filters, "pointwise_kernel", -1, "filters", axis)


def _made(
    trace: Tracer, call: Call, channels: Channels, kernel: str, kernel_axis: int, key: str, axis: int
) -> Flow:
    trace.cut(call, kernel, kernel_axis, channels, unit=call.unit)
    trace.cut(call, "bias", 0, channels)
    trace.resize(call, key, lambda count: count(channels), channels)
    return [trace.activated(call, channels, axis)]


def _tie_groups(trace: Tracer, channels: Channels, groups: int) -> None:
    rows = channels.reshape(groups, -1)
    for row in rows[1:]:
        trace.channels.tie(rows[0], row)


def embedding(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow an Embedding: it makes channels from indices."""
    require_weights(call, "embeddings")
    trace.fix(inputs[0], call, "it reads indices")
    made = trace.channels.new(int(call.operation.output_dim))
    trace.cut(call, "embeddings", 1, made, unit=call.unit)
    trace.resize(call, "output_dim", lambda count: count(made), made)
    return [Labels(axis=len(call.outputs[0].shape) - 1, channels=made)]


def batch_normalization(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a batch normalization: one statistic for each position of its axis."""
    require_weights(call, "gamma", "beta", "moving_mean", "moving_variance")
    axis = int(np.atleast_1d(call.operation.axis)[0]) % len(call.inputs[0].shape)
    channels = _along(trace, call, inputs[0], axis)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        trace.cut(call, name, 0, channels)
    return [inputs[0]]


def _along(trace: Tracer, call: Call, labels: Labels | None, axis: int) -> Channels:
    """Return the channels along an axis; where the tensor has them along another, these stay."""
    if labels is not None and labels.axis == axis:
        return labels.channels
    return trace.read(None, call, 0, axis)


def layer_normalization(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a normalization whose statistics are over the axes that it normalizes."""
    labels = inputs[0]
    if labels is None:
        return [None]
    axes = {int(axis) % len(call.inputs[0].shape) for axis in np.atleast_1d(call.operation.axis)}
    if labels.axis in axes:
        raise Unprunable("its statistics are over all channels")
    return [labels]


def group_normalization(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a group normalization with one channel in each group; larger groups mix channels."""
    require_weights(call, "gamma", "beta")
    labels, layer = inputs[0], call.operation
    axis = int(layer.axis) % len(call.inputs[0].shape)
    channels = _along(trace, call, labels, axis)
    if labels is not None and (axis != labels.axis or int(layer.groups) not in (-1, len(channels))):
        raise Unprunable("its statistics are over several channels")
    if int(layer.groups) == len(channels):
        trace.resize(call, "groups", lambda count: count(channels), channels)
    for name in ("gamma", "beta"):
        trace.cut(call, name, 0, channels)
    return [labels]


def prelu(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a PReLU: a slope for each position of the axes that are not shared."""
    require_weights(call, "alpha")
    shared = {int(axis) for axis in call.operation.shared_axes or ()}
    for axis in range(1, len(call.inputs[0].shape)):
        if axis not in shared:
            trace.cut(call, "alpha", axis - 1, _along(trace, call, inputs[0], axis))
    return [inputs[0]]


_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def recurrent(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow an LSTM, a GRU or a SimpleRNN, whose units are channels of the output and of the state."""
    require_weights(call, "kernel", "recurrent_kernel", "bias")
    layer = call.operation
    for key in ("activation", "recurrent_activation"):
        if (name := activation_of(layer.cell, key)) not in POINTWISE:
            raise Unprunable(why_mixed(name))
    gates, units = _GATES[call.kind], trace.channels.new(int(layer.units))
    wide = np.tile(units, gates)
    trace.cut(call, "kernel", 0, trace.read(inputs[0], call), reads=True)
    trace.cut(call, "kernel", 1, wide, unit=call.unit)
    trace.cut(call, "recurrent_kernel", 0, units, unit=call.unit, reads=True)
    trace.cut(call, "recurrent_kernel", 1, wide)
    trace.cut(call, "bias", -1, wide)
    trace.resize(call, "units", lambda count: count(units), units)
    for number in range(1, len(inputs)):
        trace.channels.tie(units, trace.read(inputs[number], call, number))
    return [Labels(axis=len(symbol.shape) - 1, channels=units) for symbol in call.outputs]


def spatial(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a layer that works on each channel alone: pooling, padding, cropping, upsampling, resizing."""
    labels = inputs[0]
    if labels is None:
        return [None]
    if labels.axis != channel_axis(call):
        raise Unprunable("it works along another axis")
    if sized(call.outputs[0].shape, _axis_after(call)) != len(labels.channels):
        raise Unprunable("it changes the number of channels")
    return [Labels(axis=_axis_after(call), channels=labels.channels)]


def _axis_after(call: Call) -> int:
    before, after = len(call.inputs[0].shape), len(call.outputs[0].shape)
    axis = channel_axis(call)
    return axis if before == after else 1  # global pooling without keepdims: (batch, channels)


RULES: dict[str, Rule] = {
    "Dense": dense,
    "Conv1D": convolution,
    "Conv2D": convolution,
    "Conv3D": convolution,
    "Conv1DTranspose": transposed_convolution,
    "Conv2DTranspose": transposed_convolution,
    "Conv3DTranspose": transposed_convolution,
    "DepthwiseConv1D": depthwise_convolution,
    "DepthwiseConv2D": depthwise_convolution,
    "SeparableConv1D": separable_convolution,
    "SeparableConv2D": separable_convolution,
    "Embedding": embedding,
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "UnitNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "PReLU": prelu,
    **dict.fromkeys(_GATES, recurrent),
    **{
        f"{kind}{rank}D": spatial
        for kind in (
            "MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling", "AdaptiveMaxPooling",
            "AdaptiveAveragePooling", "ZeroPadding", "Cropping", "UpSampling",
        )
        for rank in (1, 2, 3)
    },
    "Resizing": spatial,
    "CenterCrop": spatial,
}  # fmt: skip
"""{class of Keras: its rule}"""
