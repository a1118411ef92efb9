"""Groups of tensors whose channels are scaled together, so that the model stays the same function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.layers import Layer, read_layer
from edgeq_converters.graph.model import Model

Array = npt.NDArray[Any]
_BY_CHANNEL = frozenset(
    {
        "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RELU", "RELU6",
        "LEAKY_RELU", "PRELU", "PAD", "CONCATENATION", "RESHAPE", "SQUEEZE", "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE", "BATCH_MATMUL",
    }
)  # fmt: skip
"""Operations that map r*x to r*y, channel by channel, for any r > 0 (RELU6: below its limit).

BATCH_MATMUL does so for its second input: the values of an attention.
"""
_OF_TWO = ("ADD", "SUB", "MAXIMUM", "MINIMUM")
_LIMITS = {0: np.inf, 1: np.inf, 3: 6.0}
"""Upper bounds of the fused activations that are such operations: none, ReLU and ReLU6."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Tensors whose channels belong to common classes, each of which has one factor.

    They are written only by `producers` and read only by `consumers` and by operations that keep the factors.

    Attributes:
        channels: number of classes.
        classes: by tensor: the class of each of its channels, all different. The last dimension of a
            flattened tensor is a multiple of their number.
        fixed: whether a class must keep the factor 1.
        producers: layers, and products with a constant for each channel, such as the gain of a normalization.
        offsets: (constant that is added, tensor with its channels).
        limit: the lowest bound of an activation function inside (6 for ReLU6); infinity without one.
    """

    channels: int
    classes: Mapping[int, Array]
    fixed: Array
    producers: tuple[Layer, ...]
    consumers: tuple[Layer, ...]
    offsets: tuple[tuple[int, int], ...]
    limit: float

    @property
    def tensors(self) -> tuple[int, ...]:
        """The indices of the activations."""
        return tuple(self.classes)


def find_groups(model: Model) -> tuple[Group, ...]:
    """Return the groups of a float model that can be scaled, in order of execution.

    A channel cannot be scaled if it is an input or output of the model, or if an operation mixes it with
    others, is not homogeneous, or has shared constants.
    """
    parsed, graph = model.parsed, model.graph
    users = edit.buffer_users(parsed)
    channels = _Channels(graph)
    layers: list[Layer] = []
    offsets: list[tuple[int, int]] = []
    writers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    for index in (*graph.inputs, *graph.outputs):
        channels.fix(int(index))
    for operator in graph.operators:
        layer = read_layer(parsed, operator)
        if layer is not None:
            layers.append(layer)
            if np.isfinite(layer.high):
                channels.limit(layer.target, layer.high if layer.low == 0 else 0.0)
            if _shares_constants(parsed, layer, users):
                channels.fix(layer.source)
                channels.fix(layer.target)
            continue
        ties, limit = _ties(parsed, operator, channels)
        constant = _of_channels(parsed, operator)
        if constant is not None and users[graph.tensors[constant].buffer] == 1:
            source = next(int(i) for i in operator.inputs if int(i) != constant)
            target = int(operator.outputs[0])
            if tflite_file.op_name(parsed, operator) == "ADD":
                every = np.arange(channels.width[target])
                ties, limit = [(source, every, target, every)], _LIMITS.get(_activation(operator), 0.0)
                offsets.append((constant, target))
            elif not _activation(operator) and not _keeps_factors(parsed, writers.get(source), channels):
                layers.append(_gain(graph, source, constant, target))
                channels.fix(source)
                continue
        if not ties or limit <= 0:
            for index in tflite_file.tensor_indices(operator):
                channels.fix(index)
            continue
        for source, kept, target, written in ties:
            channels.tie(source, kept, target, written)
        if np.isfinite(limit):
            channels.limit(ties[0][2], limit)
        for index in _others(parsed, operator, {source for source, *_ in ties}):
            channels.fix(index)
    return tuple(_collect(layers, offsets, channels))


class _Channels:
    """The channels of all tensors, numbered one after the other, and which of them have one factor."""

    def __init__(self, graph: Any) -> None:
        self.width = [_shape(tensor)[-1] if _shape(tensor) else 0 for tensor in graph.tensors]
        self._start = np.concatenate([[0], np.cumsum(self.width)]).astype(np.int64)
        self._fixed = np.zeros(int(self._start[-1]), np.bool_)
        self._edges: list[tuple[Array, Array]] = []
        self._tied: list[tuple[int, int]] = []
        self.limits: dict[int, float] = {}

    def of(self, index: int) -> Array:
        return np.arange(self._start[index], self._start[index + 1])

    def fix(self, index: int) -> None:
        self._fixed[self.of(index)] = True

    def limit(self, index: int, bound: float) -> None:
        self.limits[index] = min(bound, self.limits.get(index, np.inf))

    def tie(self, source: int, kept: Array, target: int, written: Array) -> None:
        """Give channels of two tensors, at the same places of both lists, one factor."""
        self._edges.append((self.of(source)[kept], self.of(target)[written]))
        self._tied.append((source, target))

    def classes(self) -> tuple[Array, Array]:
        """Return (the class of each channel, whether a class is fixed, by its number)."""
        labels = np.arange(len(self._fixed))
        one, other = (
            np.concatenate([np.zeros(0, np.int64), *(each[side] for each in self._edges)]).astype(np.int64)
            for side in (0, 1)
        )
        while True:  # each channel takes the lowest number of those it is tied to
            lowest = labels.copy()
            np.minimum.at(lowest, one, labels[other])
            np.minimum.at(lowest, other, labels[one])
            lowest = lowest[lowest]
            if (lowest == labels).all():
                break
            labels = lowest
        fixed = np.zeros(len(labels), np.bool_)
        np.logical_or.at(fixed, labels, self._fixed)
        return labels, fixed

    def components(self) -> Array:
        """Return a number for each tensor that those tied to it share."""
        labels = np.arange(len(self.width))
        while True:
            lowest = labels.copy()
            for source, target in self._tied:
                lowest[source] = lowest[target] = min(lowest[source], lowest[target])
            if (lowest == labels).all():
                return labels
            labels = lowest


def _shares_constants(parsed: Any, layer: Layer, users: dict[int, int]) -> bool:
    tensors = parsed.subgraphs[0].tensors
    return any(users[tensors[i].buffer] > 1 for i in (layer.weights, layer.bias) if i >= 0)


def _others(parsed: Any, operator: Any, tied: set[int]) -> Iterator[int]:
    """Yield the computed operands that are not tied to the result, such as the gate of a product."""
    tensors = parsed.subgraphs[0].tensors
    for index in tflite_file.index_list(operator.inputs):
        if index >= 0 and index not in tied and not tflite_file.is_constant(parsed, tensors[index]):
            yield index


_Tie = tuple[int, Array, int, Array]


def _ties(parsed: Any, operator: Any, channels: _Channels) -> tuple[list[_Tie], float]:
    """Return ((source, its channels, target, its channels) of an operation, the upper bound of its output).

    There are none if the operation does not scale with its input.
    """
    graph = parsed.subgraphs[0]
    name = tflite_file.op_name(parsed, operator)
    if name not in _BY_CHANNEL or len(operator.outputs) != 1:
        return [], np.inf
    inputs = [i for i in tflite_file.index_list(operator.inputs) if i >= 0]
    variable = [i for i in inputs if not tflite_file.is_constant(parsed, graph.tensors[i])]
    target = int(operator.outputs[0])
    shapes = {i: _shape(graph.tensors[i]) for i in (*variable, target)}
    if not variable or any(len(shape) < 2 for shape in shapes.values()):
        return [], np.inf
    limit = 6.0 if name == "RELU6" else _LIMITS.get(_activation(operator), 0.0)
    every = np.arange(channels.width[target])
    if name == "CONCATENATION":
        return _ties_of_parts(operator, variable, inputs, target, shapes), limit
    if name == "PAD":
        return _ties_of_padding(parsed, operator, variable, target, channels), limit
    if name == "MUL":
        kept = _kept_factor(parsed, variable)
        fits = kept is not None and shapes[kept] == shapes[target]
        return ([(kept, every, target, every)] if kept is not None and fits else []), limit
    if name in _OF_TWO:
        fits = len(inputs) == len(variable) == 2 and shapes[variable[0]] == shapes[variable[1]]
        return ([(each, every, target, every) for each in variable] if fits else []), limit
    source = variable[0]
    width = channels.width[source]
    if name == "BATCH_MATMUL":
        options = operator.builtinOptions
        fits = len(set(variable)) == 2 and not (options is not None and options.adjY)
        return ([(variable[1], every, target, every)] if fits else []), limit
    if name in ("RESHAPE", "SQUEEZE"):
        narrow, wide = sorted((width, channels.width[target]))
        fits = shapes[source][0] == shapes[target][0] and narrow > 0 and wide % narrow == 0
        # The channels of one head have the factors of all.
        own = np.arange(wide)
        return ([(source, own % width, target, own % channels.width[target])] if fits else []), limit
    if name == "TRANSPOSE":
        order = graph.tensors[int(operator.inputs[1])]
        fits = tflite_file.is_constant(parsed, order)
        fits = fits and int(edit.constant(parsed, order)[-1]) == len(shapes[source]) - 1
    else:
        fits = len(variable) == 1 and width == channels.width[target]
    if name == "MEAN":
        fits = fits and _is_spatial(parsed, operator, len(shapes[source]))
    return ([(source, every % width, target, every)] if fits else []), limit


def _ties_of_parts(
    operator: Any, variable: list[int], inputs: list[int], target: int, shapes: Mapping[int, tuple[int, ...]]
) -> list[_Tie]:
    rank = len(shapes[target])
    along_channels = int(operator.builtinOptions.axis) % rank == rank - 1
    if len(variable) < len(inputs) or len(set(inputs)) < len(inputs):
        return []
    ties: list[_Tie] = []
    start = 0
    for index in inputs:
        own = np.arange(shapes[index][-1])
        ties.append((index, own, target, own + start))
        start += shapes[index][-1] if along_channels else 0
    return ties


def _ties_of_padding(
    parsed: Any, operator: Any, variable: list[int], target: int, channels: _Channels
) -> list[_Tie]:
    """Return the ties of a PAD by zeros; the channels that it adds are zero whatever their factor is."""
    paddings = parsed.subgraphs[0].tensors[int(operator.inputs[1])]
    if len(variable) != 1 or not tflite_file.is_constant(parsed, paddings):
        return []
    before = int(edit.constant(parsed, paddings)[-1][0])
    own = np.arange(channels.width[variable[0]])
    return [(variable[0], own, target, own + before)]


def _kept_factor(parsed: Any, variable: list[int]) -> int | None:
    """Return the operand of a product that may be scaled: the only one, or that beside a sigmoid's gate."""
    if len(variable) == 1:
        return variable[0]
    gates = {
        int(operator.outputs[0])
        for operator in parsed.subgraphs[0].operators
        if tflite_file.op_name(parsed, operator) == "LOGISTIC"
    }
    others = [index for index in variable if index not in gates]
    return others[0] if len(others) == 1 else None


def _is_spatial(parsed: Any, operator: Any, rank: int) -> bool:
    axes = parsed.subgraphs[0].tensors[int(operator.inputs[1])]
    if not tflite_file.is_constant(parsed, axes):
        return False
    return all(int(axis) % rank not in (0, rank - 1) for axis in edit.constant(parsed, axes).ravel())


def _keeps_factors(parsed: Any, operator: Any, channels: _Channels) -> bool:
    """Return whether an operation's output can be scaled: that of a layer, or of what keeps the factors."""
    if operator is None:
        return False
    return read_layer(parsed, operator) is not None or bool(_ties(parsed, operator, channels)[0])


def _gain(graph: Any, source: int, constant: int, target: int) -> Layer:
    """Return a product with a constant for each channel as a layer of one input for each output."""
    return Layer(
        kind="MUL",
        source=source,
        weights=constant,
        bias=-1,
        target=target,
        axis=0,
        groups=_shape(graph.tensors[target])[-1],
        width=1,
        fan_in=1,
        kernel=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
        before=(0, 0),
        low=-np.inf,
        high=np.inf,
    )


def _of_channels(parsed: Any, operator: Any) -> int | None:
    """Return the constant operand of an ADD or MUL that has one value for each channel; None otherwise."""
    graph = parsed.subgraphs[0]
    inputs = tflite_file.index_list(operator.inputs)
    if tflite_file.op_name(parsed, operator) not in ("ADD", "MUL") or len(inputs) != 2:
        return None
    constants = [i for i in inputs if tflite_file.is_constant(parsed, graph.tensors[i])]
    shape = _shape(graph.tensors[int(operator.outputs[0])])
    if len(constants) != 1 or len(shape) < 2:
        return None
    held = graph.tensors[constants[0]]
    source = next(i for i in inputs if i != constants[0])
    sizes = _shape(held)
    fits = _shape(graph.tensors[source]) == shape and tflite_file.type_name(held) == "FLOAT32"
    wide = len(sizes) > 0 and sizes[-1] == shape[-1] and int(np.prod(sizes)) == shape[-1]
    return constants[0] if fits and wide else None


def _activation(operator: Any) -> int:
    return int(getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0)


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _collect(layers: list[Layer], offsets: list[tuple[int, int]], channels: _Channels) -> Iterator[Group]:
    labels, fixed = channels.classes()
    components = channels.components()
    for key in dict.fromkeys(int(components[layer.target]) for layer in layers):
        tensors = [int(i) for i in np.flatnonzero(components == key)]
        producers = tuple(layer for layer in layers if components[layer.target] == key)
        consumers = tuple(layer for layer in layers if components[layer.source] == key)
        periods = {index: _period(labels[channels.of(index)]) for index in tensors}
        own = {index: period for index, period in periods.items() if period is not None}
        limit = min((channels.limits[i] for i in tensors if i in channels.limits), default=np.inf)
        complete = len(own) == len(tensors) and all(
            layer.groups * layer.width % len(own[layer.target]) == 0 for layer in producers
        )
        complete = complete and all(
            layer.groups in (1, len(own[layer.source]))
            and (layer.groups > 1 or layer.fan_in % len(own[layer.source]) == 0)
            for layer in consumers
        )
        if not complete or not consumers or limit <= 0:
            continue
        classes = np.unique(np.concatenate(list(own.values())))
        if not fixed[classes].all():
            yield Group(
                channels=len(classes),
                classes={index: np.searchsorted(classes, each) for index, each in own.items()},
                fixed=fixed[classes],
                producers=producers,
                consumers=consumers,
                offsets=tuple(each for each in offsets if each[1] in own),
                limit=limit,
            )


def _period(labels: Array) -> Array | None:
    """Return the classes that repeat along the last dimension, all different; None where they do not."""
    count = len(np.unique(labels))
    if not count or len(labels) % count:
        return None
    rows = labels.reshape(-1, count)
    return rows[0] if (rows == rows[0]).all() else None
