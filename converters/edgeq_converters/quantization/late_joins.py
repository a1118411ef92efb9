"""Move joins of uneven parts behind the operations after them, up to the output, with the same result.

`slices` divides an output whose last operation joins parts of different sizes. A detector often joins boxes
and scores first, and then transposes or reshapes them, or joins such pairs of several levels:

- T(CONCAT(a, b)) = CONCAT(T(a), T(b)) for a TRANSPOSE, a RESHAPE that keeps the joined axis, an activation
  such as ReLU, and arithmetic with a constant, which is cut like the parts;
- CONCAT(CONCAT(a, b), CONCAT(c, d)) = CONCAT(CONCAT(a, c), CONCAT(b, d)) for two axes.

Each value is computed by the same operations, so that the results are equal bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

FACTOR = 4.0
"""Parts whose largest values differ by more than this factor get scales of their own: two bits less."""
_SHAPING = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_ACTIVATIONS = {"RELU", "LEAKY_RELU"}
_ARITHMETIC = {"ADD", "SUB", "MUL", "DIV"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LateJoins:
    """A float model in which the joins of uneven parts are last.

    Attributes:
        model: the same value where nothing was moved.
        sources: by the name of each new tensor: the tensors whose values it holds; None where others were
            computed from them.
    """

    model: Model
    sources: Mapping[str, tuple[str, ...] | None]

    def histograms(self, known: Mapping[str, Histogram]) -> dict[str, Histogram] | None:
        """Return the histograms with those of the new tensors; None where these must be observed."""
        histograms = dict(known)
        for name, sources in self.sources.items():
            if sources is None:
                return None
            merged = histograms[sources[0]]
            for source in sources[1:]:
                merged = merged.merge(histograms[source])
            histograms[name] = merged
        return histograms


def size_of(histogram: Histogram) -> float:
    """Return the largest magnitude of a tensor."""
    return max(abs(histogram.minimum), abs(histogram.maximum))


def join_last(
    model: Model, histograms: Mapping[str, Histogram], recipe: Recipe, *, except_for: Collection[int] = ()
) -> LateJoins:
    """Return the model with the joins of uneven parts at its outputs.

    Args:
        model: a prepared float model.
        histograms: of its activations.
        except_for: the positions of outputs that stay.
    """
    sources: dict[str, tuple[str, ...] | None] = {}
    if recipe.scheme is Scheme.INT16X8:
        return LateJoins(model=model, sources=sources)
    named = {*recipe.float_ops, *(recipe.int16_ops or ())}
    for position, output in enumerate(tflite_file.index_list(model.graph.outputs)):
        if position in except_for or not _may_join(GraphEditor(model.parsed), output):
            continue
        edited = Editor(model)
        editor = GraphEditor(edited.parsed)
        if editor.readers(output):
            continue
        moving = _Moving(editor, histograms, named)
        if moving.pull(output) and moving.moved:
            model = without_dead(edited.pack())
            sources |= moving.sources
    left = {tflite_file.tensor_name(tensor) for tensor in model.graph.tensors}
    return LateJoins(model=model, sources={name: of for name, of in sources.items() if name in left})


def _may_join(editor: GraphEditor, index: int) -> bool:
    """Return whether a join precedes a tensor with nothing but operations that it can be moved behind."""
    operator = editor.producer(index)
    kind = editor.kind(operator)
    if kind in {"CONCATENATION", "PACK"}:
        return True
    if kind not in {*_SHAPING, *_ACTIVATIONS, *_ARITHMETIC, "TRANSPOSE"}:
        return False
    return any(_may_join(editor, each) for each in tflite_file.index_list(operator.inputs) if each >= 0)


class _Moving:
    """Moves one join in a graph that is changed in place; a failed attempt leaves an equal graph."""

    def __init__(
        self, editor: GraphEditor, histograms: Mapping[str, Histogram], named: Collection[str]
    ) -> None:
        self._editor, self._histograms, self._named = editor, histograms, named
        self.sources: dict[str, tuple[str, ...] | None] = {}
        self.moved = False

    def pull(self, index: int) -> bool:
        """Let a tensor be the result of a CONCATENATION or PACK of uneven parts; return whether it is."""
        editor = self._editor
        operator = editor.producer(index)
        kind = editor.kind(operator)
        if operator is None or editor.name(index) in self._named:
            return False
        if kind in {"CONCATENATION", "PACK"}:
            return self._pull_join(operator)
        move = self._move_of(operator, kind)
        data = self._data_of(operator, kind)
        if move is None or data is None or not editor.has_one_reader(data) or not self.pull(data):
            return False
        join = self._as_concatenation(editor.producer(data))
        return move(operator, join)

    def _data_of(self, operator: Any, kind: str) -> int | None:
        """Return the only computed operand."""
        inputs = tflite_file.index_list(operator.inputs)
        if kind not in _ARITHMETIC:
            return inputs[0]
        computed = [each for each in inputs if self._editor.constant(each) is None]
        return computed[0] if len(computed) == 1 else None

    def _move_of(self, operator: Any, kind: str) -> Callable[[Any, Any], bool] | None:
        if kind == "TRANSPOSE":
            return self._behind_transpose
        if kind in _SHAPING:
            return self._behind_reshape
        return self._behind_elements if kind in {*_ACTIVATIONS, *_ARITHMETIC} else None

    def _pull_join(self, operator: Any) -> bool:
        editor = self._editor
        parts = tflite_file.index_list(operator.inputs)
        if editor.activation(operator) or len(set(parts)) < len(parts):
            return False
        joins = [each for each in parts if self._is_join(each)]
        if len(joins) == len(parts) and self._swap(operator, parts):
            return True
        if editor.kind(operator) == "CONCATENATION" and self._flatten(operator, joins):
            return True
        sizes = [
            size_of(self._histograms[editor.name(each)])
            for each in parts
            if editor.name(each) in self._histograms
        ]
        return len(sizes) == len(parts) and min(sizes) > 0 and max(sizes) > FACTOR * min(sizes)

    def _is_join(self, index: int) -> bool:
        return self._editor.has_one_reader(index) and self.pull(index)

    def _swap(self, outer: Any, parts: Sequence[int]) -> bool:
        """Join the first parts of all inner joins, then the second ones, and so on; then join these."""
        editor = self._editor
        if editor.kind(outer) == "PACK":
            outer = self._as_concatenation(outer)
            parts = tflite_file.index_list(outer.inputs)
            if not all(self.pull(each) for each in parts):
                return False
        joins = [self._as_concatenation(editor.producer(each)) for each in parts]
        rank = len(editor.shape(parts[0]))
        axes = {int(each.builtinOptions.axis) % rank for each in joins}
        inner = [tflite_file.index_list(each.inputs) for each in joins]
        if len(axes) != 1 or len({len(each) for each in inner}) != 1:
            return False
        axis, outer_axis = axes.pop(), int(outer.builtinOptions.axis) % rank
        columns = list(zip(*inner, strict=True))
        if axis == outer_axis:
            return self._flatten(outer, parts)
        if any(len({editor.shape(index)[axis] for index in each}) != 1 for each in columns):
            return False
        joined = []
        for each in columns:
            shape = list(editor.shape(each[0]))
            shape[outer_axis] = sum(editor.shape(index)[outer_axis] for index in each)
            target = self._new_tensor(shape, each)
            editor.insert(outer, "CONCATENATION", each, target, axis=outer_axis)
            joined.append(target)
        self._finish(outer, joined, axis)
        return True

    def _flatten(self, outer: Any, joins: Sequence[int]) -> bool:
        """Put the parts of inner joins along the same axis in their place; return whether there are any."""
        editor = self._editor
        axis = int(outer.builtinOptions.axis) % len(editor.shape(int(outer.outputs[0])))
        parts: list[int] = []
        for index in tflite_file.index_list(outer.inputs):
            inner = self._as_concatenation(editor.producer(index)) if index in joins else None
            if inner is not None and int(inner.builtinOptions.axis) % len(editor.shape(index)) == axis:
                parts += tflite_file.index_list(inner.inputs)
            else:
                parts.append(index)
        if len(parts) == len(outer.inputs):
            return False
        self.moved = True
        self._finish(outer, parts, axis)
        return True

    def _as_concatenation(self, join: Any) -> Any:
        """Return the join; a PACK is a CONCATENATION of parts with one more axis of the size 1."""
        editor = self._editor
        if editor.kind(join) != "PACK":
            return join
        output = int(join.outputs[0])
        axis = int(join.builtinOptions.axis) % len(editor.shape(output))
        shape = list(editor.shape(output))
        shape[axis] = 1
        parts = [self._reshaped(join, index, shape) for index in tflite_file.index_list(join.inputs)]
        return self._finish(join, parts, axis)

    def _behind_transpose(self, operator: Any, join: Any) -> bool:
        editor = self._editor
        order = editor.constant(int(operator.inputs[1]))
        if order is None:
            return False
        places = [int(each) for each in order.ravel()]
        axis = int(join.builtinOptions.axis) % len(places)
        parts = []
        for index in tflite_file.index_list(join.inputs):
            shape = [editor.shape(index)[each] for each in places]
            target = self._new_tensor(shape, [index])
            self._insert_like(operator, [index, int(operator.inputs[1])], target)
            parts.append(target)
        self._finish(operator, parts, places.index(axis))
        return True

    def _behind_reshape(self, operator: Any, join: Any) -> bool:
        editor = self._editor
        before, after = (editor.shape(int(each[0])) for each in (operator.inputs, operator.outputs))
        axis = int(join.builtinOptions.axis) % len(before)
        parts = tflite_file.index_list(join.inputs)
        # The joined axis begins at the same place, and its parts do not share a row of the new one.
        for place, size in enumerate(after):
            begins = math.prod(after[:place]) == math.prod(before[:axis])
            if not begins or (size == 1 and before[axis] > 1):
                continue
            sizes = [editor.shape(index)[axis] * size / before[axis] for index in parts]
            if all(each.is_integer() and each >= 1 for each in sizes):
                shapes = [(*after[:place], int(each), *after[place + 1 :]) for each in sizes]
                pairs = zip(parts, shapes, strict=True)
                self._finish(operator, [self._reshaped(operator, *each) for each in pairs], place)
                return True
        return False

    def _behind_elements(self, operator: Any, join: Any) -> bool:
        editor = self._editor
        output = int(operator.outputs[0])
        rank = len(editor.shape(output))
        axis = int(join.builtinOptions.axis) % rank
        joined = int(join.outputs[0])
        if editor.shape(joined) != editor.shape(output):
            return False
        parts, start = [], 0
        for index in tflite_file.index_list(join.inputs):
            size = editor.shape(index)[axis]
            inputs = [
                index if each == joined else self._cut(each, range(start, start + size), axis - rank)
                for each in tflite_file.index_list(operator.inputs)
            ]
            target = self._new_tensor(editor.shape(index), None)
            self._insert_like(operator, inputs, target)
            parts.append(target)
            start += size
        self._finish(operator, parts, axis)
        return True

    def _cut(self, constant: int, places: range, axis: int) -> int:
        """Return the places of a constant along an axis, counted from the end; all where it has one."""
        values = self._editor.constant(constant)
        if values is None:
            raise AssertionError("the other operand is a constant")
        if values.ndim < -axis or values.shape[axis] == 1:
            return constant
        name = f"{self._editor.name(constant)}.{places.start}"
        return self._editor.add_constant(name, np.ascontiguousarray(values.take(places, axis)))

    def _reshaped(self, before: Any, index: int, shape: Sequence[int]) -> int:
        editor = self._editor
        sizes = editor.add_constant(f"{editor.name(index)}.shape", np.array(shape, np.int32))
        target = self._new_tensor(shape, [index])
        editor.insert(before, "RESHAPE", [index, sizes], target, newShape=np.array(shape, np.int32))
        return target

    def _insert_like(self, operator: Any, inputs: Sequence[int], output: int) -> None:
        """Insert the same operation on other tensors before it."""
        editor = self._editor
        copied = editor.operation(editor.kind(operator), inputs, output)
        copied.builtinOptionsType, copied.builtinOptions = (
            operator.builtinOptionsType,
            operator.builtinOptions,
        )
        copied.opcodeIndex = operator.opcodeIndex
        editor.operators.insert(editor.position(operator), copied)
        editor.reindex()

    def _new_tensor(self, shape: Sequence[int], sources: Sequence[int] | None) -> int:
        editor = self._editor
        names = tuple(map(editor.name, sources or ()))
        self.moved = True
        index = editor.add_tensor(f"{names[0] if names else 'joined'}.part", shape)
        observed = names and all(each in self._histograms or self.sources.get(each) for each in names)
        self.sources[editor.name(index)] = names if observed else None
        return index

    def _finish(self, operator: Any, parts: Sequence[int], axis: int) -> Any:
        """Compute the result of an operation by a CONCATENATION instead, and return that."""
        output = int(operator.outputs[0])
        self._editor.replace(operator, "CONCATENATION", parts, axis=axis)
        return self._editor.producer(output)
