"""The channel graph of a Keras model: which channels each layer reads and writes, and which are tied.

Every channel has a number. Channels that must stay or go together (the operands of an addition) share a root
in a union-find; channels that can never go (the model's inputs and outputs) are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import keras_graph

Channels = npt.NDArray[np.int64]
"""For each position of a tensor's last axis, the number of the channel at that position."""

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


class ChannelSet:
    """A union-find over channels; fixed channels can never be removed."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: set[int] = set()

    def new(self, count: int, *, fixed: bool = False) -> Channels:
        """Return `count` new channels."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        channels = np.arange(first, first + count, dtype=np.int64)
        if fixed:
            self.fix(channels)
        return channels

    def root(self, channel: int) -> int:
        """Return the number that represents all channels tied to this one."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def roots(self, channels: Channels) -> Channels:
        """Return the root of each channel."""
        return np.array([self.root(int(channel)) for channel in channels], np.int64)

    def tie(self, one: Channels, other: Channels) -> None:
        """Tie the channels of two tensors position by position: each pair stays or goes together."""
        for left, right in zip(one, other, strict=True):
            a, b = sorted((self.root(int(left)), self.root(int(right))))
            self._parent[b] = a
            if b in self._fixed:
                self._fixed.add(a)

    def fix(self, channels: Channels) -> None:
        """Exclude these channels from pruning."""
        self._fixed.update(int(root) for root in self.roots(channels))

    def is_fixed(self, root: int) -> bool:
        """Return whether the channel must stay."""
        return root in self._fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGraph:
    """The channels that each layer reads and writes.

    Attributes:
        reads: {layer: channels of its input}, for layers whose weights have an input axis.
        writes: {layer: channels of its output}.
        unpruned: {layer: why its channels cannot be removed}, in graph order.
    """

    channels: ChannelSet
    reads: dict[str, Channels] = field(default_factory=dict)
    writes: dict[str, Channels] = field(default_factory=dict)
    unpruned: dict[str, str] = field(default_factory=dict)


def trace(model: Any) -> ChannelGraph:
    """Return the channel graph of a model; the channels of the model's inputs and outputs are fixed."""
    graph = ChannelGraph(channels=ChannelSet())
    at: dict[int, Channels] = {}
    model_inputs, model_outputs = keras_graph.symbols(model)
    for symbol in model_inputs:
        at[id(symbol)] = graph.channels.new(_width(symbol), fixed=True)
    for call in keras_graph.calls(model):
        inputs = [at[id(symbol)] for symbol in call.inputs]
        outputs = _through(graph, call, inputs)
        if outputs is None:
            outputs = _barrier(graph, call, inputs)
        for symbol, channels in zip(call.outputs, outputs, strict=True):
            at[id(symbol)] = channels
    for symbol in model_outputs:
        graph.channels.fix(at[id(symbol)])
    return graph


def _width(symbol: Any) -> int:
    return int(symbol.shape[-1] or 1) if len(symbol.shape) > 1 else 1


def _barrier(graph: ChannelGraph, call: keras_graph.Call, inputs: list[Channels]) -> list[Channels]:
    for channels in inputs:
        graph.channels.fix(channels)
    graph.unpruned.setdefault(call.name, f"{call.kind} is not supported")
    return [graph.channels.new(_width(symbol), fixed=True) for symbol in call.outputs]


def _through(graph: ChannelGraph, call: keras_graph.Call, inputs: list[Channels]) -> list[Channels] | None:
    """Return the channels of the outputs, or None for a layer that cannot be traced."""
    kind, layer = call.kind, call.operation
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return None
    if kind in SOURCES:
        return _source(graph, call, inputs[0])
    if kind in _DEPTHWISE:
        graph.reads[call.name] = inputs[0]
        graph.writes[call.name] = np.repeat(inputs[0], int(layer.depth_multiplier))
        return [graph.writes[call.name]]
    if kind in _CARRIERS and len(inputs) == 1:
        return _carry(graph, call, inputs[0])
    if kind in _MERGES and len(inputs) > 1 and len(inputs) == len(_tensor_arguments(call)):
        return _merge(graph, inputs)
    if kind == "Concatenate":
        return _concatenate(graph, call, inputs)
    if kind == "Flatten":
        return [np.tile(inputs[0], _width(call.outputs[0]) // max(len(inputs[0]), 1))]
    if kind == "Reshape":
        return _reshape(graph, call, inputs[0])
    return None


def _source(graph: ChannelGraph, call: keras_graph.Call, inputs: Channels) -> list[Channels] | None:
    layer = call.operation
    if getattr(layer, "groups", 1) != 1:
        return None
    count = _width(call.outputs[0])
    if call.name in graph.writes:  # a second call shares the weights, and so the channels
        graph.channels.tie(graph.reads[call.name], inputs)
        return [graph.writes[call.name]]
    graph.reads[call.name] = inputs
    graph.writes[call.name] = graph.channels.new(count, fixed=_softmaxed(layer))
    return [graph.writes[call.name]]


def _softmaxed(layer: Any) -> bool:
    # Each output of a softmax over channels depends on all of them.
    return getattr(getattr(layer, "activation", None), "__name__", "") == "softmax"


def _carry(graph: ChannelGraph, call: keras_graph.Call, inputs: Channels) -> list[Channels] | None:
    layer = call.operation
    if call.kind in _WITH_AXIS:
        rank = len(call.inputs[0].shape)
        if int(np.atleast_1d(layer.axis)[0]) not in (-1, rank - 1):
            return None
    if _softmaxed(layer):
        return None
    if call.name in graph.writes and layer.weights:  # a second call with the same weights
        graph.channels.tie(graph.writes[call.name], inputs)
    graph.writes[call.name] = inputs
    return [inputs]


def _tensor_arguments(call: keras_graph.Call) -> list[Any]:
    # A constant array among the arguments has channels that this module would not cut.
    import keras

    arguments = keras.tree.flatten([call.node.arguments.args, call.node.arguments.kwargs])
    return [value for value in arguments if hasattr(value, "shape")]


def _merge(graph: ChannelGraph, inputs: list[Channels]) -> list[Channels]:
    widest = max(inputs, key=len)
    for channels in inputs:
        if len(channels) == len(widest):
            graph.channels.tie(widest, channels)
        else:  # one channel broadcast to all
            graph.channels.fix(channels)
    return [widest]


def _concatenate(graph: ChannelGraph, call: keras_graph.Call, inputs: list[Channels]) -> list[Channels]:
    rank = len(call.outputs[0].shape)
    if int(call.operation.axis) in (-1, rank - 1):
        return [np.concatenate(inputs)]
    return _merge(graph, inputs)


def _reshape(graph: ChannelGraph, call: keras_graph.Call, inputs: Channels) -> list[Channels] | None:
    """Trace a Reshape that keeps the channels apart: they are the last axis before and after."""
    before, after = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
    if None in before or None in after:
        return None
    flat = np.tile(inputs, int(np.prod(before)) // max(len(inputs), 1))
    rows = flat.reshape(-1, after[-1])
    if not (rows == rows[0]).all():
        return None
    graph.writes[call.name] = rows[0]
    return [rows[0]]
