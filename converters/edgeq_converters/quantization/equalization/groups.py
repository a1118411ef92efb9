"""Groups of tensors that must share one scaling of their channels for the model to stay the same function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.layers import Layer, read_layer
from edgeq_converters.graph.model import Model

_HOMOGENEOUS = frozenset(
    {
        "ADD", "SUB", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RELU", "RELU6", "LEAKY_RELU", "PAD",
        "RESHAPE", "SQUEEZE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    }
)  # fmt: skip
"""Operations that map r*x to r*y, channel by channel, for any r > 0 (RELU6: below its limit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors with one scaling, written only by `producers` and read only by `consumers`.

    Attributes:
        channels: number of factors; the last dimension of a flattened tensor is a multiple of it.
        tensors: indices of the activations.
        limit: the lowest bound of an activation function inside (6 for ReLU6); infinity without one.
    """

    channels: int
    tensors: tuple[int, ...]
    producers: tuple[Layer, ...]
    consumers: tuple[Layer, ...]
    limit: float


def find_groups(model: Model) -> tuple[Group, ...]:
    """Return the groups of a float model that can be scaled, in order of execution.

    A group cannot be scaled if it touches an input or output of the model, an operation that mixes channels
    or is not homogeneous, or a shared constant, or if it lacks a producer or a consumer.
    """
    parsed, graph = model.parsed, model.graph
    users = edit.buffer_users(parsed)
    parent = list(range(len(graph.tensors)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    excluded = {int(i) for i in (*graph.inputs, *graph.outputs)}
    limits: dict[int, float] = {}
    layers: list[Layer] = []
    for operator in graph.operators:
        layer = read_layer(parsed, operator)
        if layer is not None:
            layers.append(layer)
            if np.isfinite(layer.high):
                limits[layer.target] = layer.high if layer.low == 0 else 0.0
            if _shares_constants(parsed, layer, users):
                excluded.update((layer.source, layer.target))
            continue
        touched, limit = _homogeneous(parsed, operator)
        if touched is None:
            excluded.update(tflite_file.tensor_indices(operator))
            continue
        if np.isfinite(limit):
            limits[touched[-1]] = limit
        for index in touched[1:]:
            parent[root(index)] = root(touched[0])
    return _collect(graph, layers, limits, {root(i) for i in excluded}, root)


def _shares_constants(parsed: Any, layer: Layer, users: dict[int, int]) -> bool:
    tensors = parsed.subgraphs[0].tensors
    return any(users[tensors[i].buffer] > 1 for i in (layer.weights, layer.bias) if i >= 0)


def _homogeneous(parsed: Any, operator: Any) -> tuple[list[int] | None, float]:
    """Return (the activations that an operation ties together, the upper bound of its output).

    The activations are None if the operation does not scale with its input.
    """
    graph = parsed.subgraphs[0]
    name = tflite_file.op_name(parsed, operator)
    if name not in _HOMOGENEOUS or len(operator.outputs) != 1:
        return None, np.inf
    variable = [
        int(i)
        for i in operator.inputs
        if i >= 0 and not tflite_file.is_constant(parsed, graph.tensors[int(i)])
    ]
    target = int(operator.outputs[0])
    shapes = [_shape(graph.tensors[i]) for i in (*variable, target)]
    if not variable or any(len(shape) < 2 for shape in shapes):
        return None, np.inf
    if name in ("ADD", "SUB"):
        fit = len(variable) == 2 and shapes[0] == shapes[1]
    elif name in ("RESHAPE", "SQUEEZE"):
        fit = shapes[0][0] == shapes[-1][0] and shapes[-1][-1] % shapes[0][-1] == 0
    else:
        fit = len(variable) == 1 and shapes[0][-1] == shapes[-1][-1] and len(shapes[0]) >= 2
    if name == "PAD":
        paddings = graph.tensors[int(operator.inputs[1])]
        fit = (
            fit
            and tflite_file.is_constant(parsed, paddings)
            and not edit.constant(parsed, paddings)[-1].any()
        )
    if name == "MEAN":
        axes = graph.tensors[int(operator.inputs[1])]
        rank = len(shapes[0])
        fit = fit and tflite_file.is_constant(parsed, axes)
        fit = fit and all(int(a) % rank not in (0, rank - 1) for a in edit.constant(parsed, axes).ravel())
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    limit = {0: np.inf, 1: np.inf, 3: 6.0}.get(fused, 0.0)
    if name == "RELU6":
        limit = 6.0
    return ([*variable, target] if fit and limit > 0 else None), limit


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _collect(
    graph: Any, layers: list[Layer], limits: dict[int, float], excluded: set[int], root: Any
) -> tuple[Group, ...]:
    groups = []
    for key in dict.fromkeys(root(layer.target) for layer in layers):
        if key in excluded:
            continue
        producers = tuple(layer for layer in layers if root(layer.target) == key)
        consumers = tuple(layer for layer in layers if root(layer.source) == key)
        tensors = tuple(i for i in range(len(graph.tensors)) if root(i) == key)
        channels = min(_shape(graph.tensors[i])[-1] for i in tensors)
        limit = min((limits[i] for i in tensors if i in limits), default=np.inf)
        complete = all(layer.groups * layer.width == channels for layer in producers)
        if consumers and complete and limit > 0:
            groups.append(
                Group(
                    channels=channels, tensors=tensors, producers=producers, consumers=consumers, limit=limit
                )
            )
    return tuple(groups)
