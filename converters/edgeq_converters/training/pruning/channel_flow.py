"""Follows every channel of a Keras model from the layer that makes it through all layers that carry it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning.channel_sets import Atoms, AtomSet

SOURCES = {
    "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
    "SeparableConv1D", "SeparableConv2D", "Dense",
}  # fmt: skip
_DEPTHWISE = {"DepthwiseConv1D", "DepthwiseConv2D"}
_CARRIERS = {
    "BatchNormalization", "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Dropout", "GaussianNoise",
    "GaussianDropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D",
    "AveragePooling3D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "ZeroPadding1D", "ZeroPadding2D",
    "ZeroPadding3D", "UpSampling1D", "UpSampling2D", "UpSampling3D", "Cropping1D", "Cropping2D",
    "Cropping3D", "ActivityRegularization", "Identity", "Relu", "Relu6", "Sigmoid", "Tanh", "HardSigmoid",
    "HardSwish", "Silu", "Gelu", "Elu", "LeakyRelu", "Softplus",
}  # fmt: skip
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
_WITH_AXIS = {"BatchNormalization"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFlow:
    """Which channels each layer takes and gives.

    Attributes:
        takes: {layer: the channels of its input}, for layers whose weights have an input axis.
        gives: {layer: the channels of its output}.
        left: {layer: why its channels cannot be removed}, in the order of the graph.
    """

    atoms: AtomSet
    takes: dict[str, Atoms] = field(default_factory=dict)
    gives: dict[str, Atoms] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def follow(model: Any) -> ChannelFlow:
    """Return the flow of the model's channels; the model's inputs and outputs keep theirs."""
    flow = ChannelFlow(atoms=AtomSet())
    at: dict[int, Atoms] = {}
    inputs, outputs = keras_graph.symbols(model)
    for symbol in inputs:
        at[id(symbol)] = flow.atoms.new(_width(symbol), fixed=True)
    for call in keras_graph.calls(model):
        taken = [at[id(symbol)] for symbol in call.inputs]
        made = _through(flow, call, taken)
        if made is None:
            made = _barrier(flow, call, taken)
        for symbol, atoms in zip(call.outputs, made, strict=True):
            at[id(symbol)] = atoms
    for symbol in outputs:
        flow.atoms.fix(at[id(symbol)])
    return flow


def _width(symbol: Any) -> int:
    return int(symbol.shape[-1] or 1) if len(symbol.shape) > 1 else 1


def _barrier(flow: ChannelFlow, call: keras_graph.Call, taken: list[Atoms]) -> list[Atoms]:
    for atoms in taken:
        flow.atoms.fix(atoms)
    flow.left.setdefault(call.name, f"{call.kind} is not followed")
    return [flow.atoms.new(_width(symbol), fixed=True) for symbol in call.outputs]


def _through(flow: ChannelFlow, call: keras_graph.Call, taken: list[Atoms]) -> list[Atoms] | None:
    """Return the channels of the outputs; None where the layer cannot be followed."""
    kind, layer = call.kind, call.operation
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return None
    if kind in SOURCES:
        return _source(flow, call, taken[0])
    if kind in _DEPTHWISE:
        flow.takes[call.name] = taken[0]
        flow.gives[call.name] = np.repeat(taken[0], int(layer.depth_multiplier))
        return [flow.gives[call.name]]
    if kind in _CARRIERS and len(taken) == 1:
        return _carry(flow, call, taken[0])
    if kind in _MERGES and len(taken) > 1 and len(taken) == len(_tensor_arguments(call)):
        return _merge(flow, taken)
    if kind == "Concatenate":
        return _concatenate(flow, call, taken)
    if kind == "Flatten":
        return [np.tile(taken[0], _width(call.outputs[0]) // max(len(taken[0]), 1))]
    if kind == "Reshape":
        return _reshape(flow, call, taken[0])
    return None


def _source(flow: ChannelFlow, call: keras_graph.Call, taken: Atoms) -> list[Atoms] | None:
    layer = call.operation
    if getattr(layer, "groups", 1) != 1:
        return None
    count = _width(call.outputs[0])
    if call.name in flow.gives:  # called before: its weights are shared, so its channels are
        flow.atoms.tie(flow.takes[call.name], taken)
        return [flow.gives[call.name]]
    flow.takes[call.name] = taken
    flow.gives[call.name] = flow.atoms.new(count, fixed=_softmaxed(layer))
    return [flow.gives[call.name]]


def _softmaxed(layer: Any) -> bool:
    # A softmax over channels: each of its outputs depends on all.
    return getattr(getattr(layer, "activation", None), "__name__", "") == "softmax"


def _carry(flow: ChannelFlow, call: keras_graph.Call, taken: Atoms) -> list[Atoms] | None:
    layer = call.operation
    if call.kind in _WITH_AXIS:
        rank = len(call.inputs[0].shape)
        if int(np.atleast_1d(layer.axis)[0]) not in (-1, rank - 1):
            return None
    if _softmaxed(layer):
        return None
    if call.name in flow.gives and layer.weights:  # called before, with the same weights
        flow.atoms.tie(flow.gives[call.name], taken)
    flow.gives[call.name] = taken
    return [taken]


def _tensor_arguments(call: keras_graph.Call) -> list[Any]:
    # A constant array among the arguments of an operation has channels that nothing here would cut.
    import keras

    arguments = keras.tree.flatten([call.node.arguments.args, call.node.arguments.kwargs])
    return [value for value in arguments if hasattr(value, "shape")]


def _merge(flow: ChannelFlow, taken: list[Atoms]) -> list[Atoms]:
    widest = max(taken, key=len)
    for atoms in taken:
        if len(atoms) == len(widest):
            flow.atoms.tie(widest, atoms)
        else:  # one channel spread over all
            flow.atoms.fix(atoms)
    return [widest]


def _concatenate(flow: ChannelFlow, call: keras_graph.Call, taken: list[Atoms]) -> list[Atoms]:
    rank = len(call.outputs[0].shape)
    if int(call.operation.axis) in (-1, rank - 1):
        return [np.concatenate(taken)]
    return _merge(flow, taken)


def _reshape(flow: ChannelFlow, call: keras_graph.Call, taken: Atoms) -> list[Atoms] | None:
    """Follow a Reshape that keeps the channels apart: the last axis is theirs before and after."""
    before, after = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
    if None in before or None in after:
        return None
    flat = np.tile(taken, int(np.prod(before)) // max(len(taken), 1))
    rows = flat.reshape(-1, after[-1])
    if not (rows == rows[0]).all():
        return None
    flow.gives[call.name] = rows[0]
    return [rows[0]]
