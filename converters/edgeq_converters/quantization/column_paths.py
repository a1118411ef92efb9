"""Find what decides the size of the slices of an output: channels of layers, and constants.

The slices lie along any axis. On the way back from an output, an array as large as the tensor holds the slice
of each value. Operations that move values (RESHAPE, TRANSPOSE, CONCATENATION, PACK) move this array the other
way. At a layer, each channel must belong to one slice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.layers import read_layer
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

Array = npt.NDArray[Any]
_MOST_VALUES = 1 << 24
"""Of a tensor whose values are followed; a larger one takes too long."""
_UNBOUNDED = {(-np.inf, np.inf), (0.0, np.inf)}
"""Bounds of activations that a division of the values leaves as they are: none and ReLU."""
_POSITIVE_FUSED = {schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU}
_POSITIVE = {"RELU", "LEAKY_RELU", "PRELU"}
"""Operations that keep the shape, and give c times the result for c times the value."""
_BY_CHANNEL = {"AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"}
"""Operations that do so within each channel, and change the other axes."""
_ARITHMETIC = {"ADD", "SUB", "MUL"}
_RESHAPING = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """Constants that decide the size of some slices: of a layer, or an operand of ADD, SUB or MUL.

    Attributes:
        of: the tensor whose slices are brought to one size.
        of_axis: of these slices.
        slices: the slice of `of` to which each channel of a layer belongs; for an operand, each value of the
            result, with axes of 1 along which that is the same.
        operand: which of its inputs is the constant; None for a layer.
        inner: the other operand of a MUL that has as many slices along an axis.
        inner_axis: of these slices.
        levels_inner: whether they are brought to one size as well; else they must have about one already.
    """

    operator: Any
    of: int
    of_axis: int
    slices: Array
    operand: int | None = None
    inner: int | None = None
    inner_axis: int = 0
    levels_inner: bool = False


def paths_along(editor: GraphEditor, users: Mapping[int, int], index: int, axis: int) -> list[Path]:
    """Return what decides the size of the slices of an output; nothing where another operation takes part.

    Args:
        users: how many tensors and operations use each buffer.
        axis: along which the slices lie, from 0, the batch.
    """
    search = _Search(editor, users, of=index, of_axis=axis)
    return search.to(index, along(editor.shape(index), axis), is_end=True)


def along(shape: tuple[int, ...], axis: int) -> Array:
    """Return an array of a shape with the places along an axis as its values."""
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(sizes), shape)


def reduced(slices: Array) -> Array:
    """Return the first entries along each axis along which all are the same."""
    for axis in range(slices.ndim):
        first = slices.take([0], axis)
        slices = first if (slices == first).all() else slices
    return slices


class _Search:
    def __init__(self, editor: GraphEditor, users: Mapping[int, int], *, of: int, of_axis: int) -> None:
        self._editor, self._users = editor, users
        self._of, self._of_axis = of, of_axis

    def to(self, index: int, slices: Array, *, is_end: bool = False) -> list[Path]:
        """Return the paths to a tensor.

        Args:
            slices: to which each value of the tensor belongs.
        """
        editor = self._editor
        if editor.readers(index) if is_end else not editor.has_one_reader(index):
            return []
        if math.prod(editor.shape(index)) > _MOST_VALUES:
            return []
        operator = editor.producer(index)
        kind = editor.kind(operator)
        if kind in {"CONCATENATION", "PACK"}:
            return self._to_parts(operator, kind, slices)
        if kind in _RESHAPING:
            source = int(operator.inputs[0])
            return self.to(source, slices.reshape(editor.shape(source)))
        if kind == "TRANSPOSE":
            order = editor.constant(int(operator.inputs[1]))
            if order is None:
                return []
            return self.to(int(operator.inputs[0]), slices.transpose(np.argsort(order.ravel())))
        if kind in _POSITIVE:
            return self.to(int(operator.inputs[0]), slices)
        if kind in _BY_CHANNEL:
            return self._to_channels(operator, slices)
        if kind in _ARITHMETIC:
            return self._to_operands(operator, kind, slices)
        return [] if operator is None else self._to_layer(operator, slices)

    def _to_layer(self, operator: Any, slices: Array) -> list[Path]:
        editor = self._editor
        layer = read_layer(editor.parsed, operator)
        channels = reduced(slices)
        if layer is None or (layer.low, layer.high) not in _UNBOUNDED or channels.size > channels.shape[-1]:
            return []
        constants = [editor.graph.tensors[i] for i in (layer.weights, layer.bias) if i >= 0]
        alone = all(
            self._users[tensor.buffer] == 1 and tflite_file.type_name(tensor) == "FLOAT32"
            for tensor in constants
        )
        by_channel = np.broadcast_to(channels.ravel(), slices.shape[-1:])
        return [self._path(operator, by_channel)] if alone else []

    def _path(self, operator: Any, slices: Array, operand: int | None = None) -> Path:
        return Path(operator=operator, of=self._of, of_axis=self._of_axis, slices=slices, operand=operand)

    def _to_channels(self, operator: Any, slices: Array) -> list[Path]:
        source, channels = int(operator.inputs[0]), reduced(slices)
        activation = self._editor.activation(operator)
        if activation not in _POSITIVE_FUSED or channels.size > channels.shape[-1]:
            return []
        return self.to(source, np.broadcast_to(channels, self._editor.shape(source)))

    def _to_parts(self, operator: Any, kind: str, slices: Array) -> list[Path]:
        editor = self._editor
        axis = int(operator.builtinOptions.axis) % slices.ndim
        if kind == "CONCATENATION" and operator.builtinOptions.fusedActivationFunction:
            return []
        paths: list[Path] = []
        start = 0
        for index in tflite_file.index_list(operator.inputs):
            count = 1 if kind == "PACK" else editor.shape(index)[axis]
            own = slices.take(range(start, start + count), axis).reshape(editor.shape(index))
            parts = self.to(index, own)
            if not parts:
                return []
            paths += parts
            start += count
        return paths

    def _to_operands(self, operator: Any, kind: str, slices: Array) -> list[Path]:
        """Return the paths through ADD and SUB, where both operands are divided, and MUL by a constant."""
        editor = self._editor
        inputs = tflite_file.index_list(operator.inputs)
        fixed = [editor.constant(index) is not None for index in inputs]
        if editor.activation(operator) not in _POSITIVE_FUSED or all(fixed) or len(inputs) != 2:
            return []
        paths: list[Path] = []
        for operand, index in enumerate(inputs):
            if fixed[operand]:
                paths.append(self._path(operator, reduced(slices), operand))
            elif kind != "MUL":
                parts = _broadcast_from(slices, editor.shape(index))
                own = [] if parts is None else self.to(index, parts)
                if not own:
                    return []
                paths += own
        if kind != "MUL" or not paths:
            return paths
        other = inputs[1 - (paths[0].operand or 0)]
        # Its slices may differ too: they get one size of their own, and the constant restores that.
        varying = [axis for axis, size in enumerate(paths[0].slices.shape) if size > 1]
        shape = editor.shape(other)
        if len(varying) != 1 or len(shape) != slices.ndim or shape[varying[0]] != slices.shape[varying[0]]:
            return paths
        axis = varying[0]
        inner = _Search(editor, self._users, of=other, of_axis=axis).to(other, along(shape, axis))
        first = replace(paths[0], inner=other, inner_axis=axis, levels_inner=bool(inner))
        return [first, *inner]


def _broadcast_from(slices: Array, shape: tuple[int, ...]) -> Array | None:
    """Return the slices of an operand of this shape; None where one of its values belongs to several."""
    if len(shape) > slices.ndim:
        return None
    full = (1,) * (slices.ndim - len(shape)) + shape
    for axis, (size, own) in enumerate(zip(slices.shape, full, strict=True)):
        if own == size:
            continue
        first = slices.take([0], axis)
        if (slices != first).any():
            return None
        slices = first
    return slices.reshape(shape)
