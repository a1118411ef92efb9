"""Results of operations that are known without an inference: constants, shapes, slices of joined tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

Array = npt.NDArray[Any]

_MOST_VALUES = 1 << 20
"""Of a result that is stored as a constant, unless an input is as large."""
_IMPURE = frozenset(
    {
        "ASSIGN_VARIABLE",
        "CALL",
        "CALL_ONCE",
        "DELEGATE",
        "IF",
        "MULTINOMIAL",
        "RANDOM_STANDARD_NORMAL",
        "RANDOM_UNIFORM",
        "READ_VARIABLE",
        "STABLEHLO_COMPOSITE",
        "VAR_HANDLE",
        "WHILE",
    }
)
"""Operations whose results do not follow from their inputs alone, or that do something besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """The parts of a CONCATENATION, which are tensors of the main graph."""

    axis: int
    parts: tuple[int, ...]


class Folding:
    """What is known of the main graph's tensors while its operations are rewritten."""

    def __init__(self, editor: GraphEditor) -> None:
        self._editor = editor
        self._joined: dict[int, _Joined] = {}
        self._empty: set[int] = set()
        self._programs: dict[tuple[Any, ...], Interpreter] = {}

    def is_pure(self, operator: Any) -> bool:
        """Return whether an operation's results follow from its inputs alone."""
        kind = self._editor.kind(operator)
        return kind not in _IMPURE and not kind.startswith(("CUSTOM", "HASHTABLE"))

    def fold(
        self, graph: Any, operator: Any, inputs: Sequence[int], operators: list[Any]
    ) -> list[int] | None:
        """Return the tensors of the main graph that hold an operation's results; None if it must run.

        Args:
            graph: of the operation.
            inputs: the operation's inputs as tensors of the main graph.
            operators: of the main graph so far; operations that join parts are added.
        """
        editor = self._editor
        kind = editor.kind(operator)
        outputs = tflite_file.index_list(operator.outputs)
        if not outputs or not self.is_pure(operator):
            return None
        if kind == "SHAPE":
            kind_of = tflite_file.type_name(graph.tensors[outputs[0]])
            dtype = np.int64 if kind_of == "INT64" else np.int32
            return [self._stored(graph, outputs[0], np.array(editor.shape(inputs[0]), dtype))]
        if kind == "CONCATENATION" and not editor.activation(operator):
            axis = int(operator.builtinOptions.axis) % max(len(editor.shape(inputs[0])), 1)
            return [self._joined_tensor(axis, inputs, operators)]
        if kind == "SLICE":
            begin, size = (editor.constant(index) for index in inputs[1:3])
            if begin is not None and size is not None:
                return self._slice(inputs[0], begin, size, operators)
            return None
        if kind == "DYNAMIC_UPDATE_SLICE":
            return self._update(inputs, operators)
        known = [editor.constant(index) for index in inputs]
        values = [value for value in known if value is not None]
        if values and len(values) == len(inputs):
            results = self.compute(graph, operator, values)
            if max(each.size for each in results) > max(_MOST_VALUES, *(each.size for each in values)):
                return None
            return [self._stored(graph, i, each) for i, each in zip(outputs, results, strict=True)]
        neutral = self._without_neutral(kind, operator, inputs, known)
        return None if neutral is None else [neutral]

    def compute(self, graph: Any, operator: Any, values: Sequence[Array]) -> list[Array]:
        """Return the results of an operation for given values of all its inputs."""
        parsed = self._editor.parsed
        free = [
            (index, value)
            for index, value in dict(
                zip(tflite_file.index_list(operator.inputs), values, strict=True)
            ).items()
            if not tflite_file.is_constant(parsed, graph.tensors[index])
        ]
        key = id(graph), id(operator), tuple(value.shape for _, value in free)
        if key not in self._programs:
            indices = [index for index, _ in free]
            outputs = tflite_file.index_list(operator.outputs)
            small = Editor(edit.extract(self._editor, [operator], indices, outputs, graph=graph))
            for index, (_, value) in zip(small.parsed.subgraphs[0].inputs, free, strict=True):
                tensor = small.parsed.subgraphs[0].tensors[int(index)]
                tensor.shape, tensor.shapeSignature = np.array(value.shape, np.int32), None
            self._programs[key] = Interpreter(small.pack())
        program = self._programs[key]
        program.run([value for _, value in free])
        return program.results()

    def _stored(self, graph: Any, index: int, values: Array) -> int:
        name = tflite_file.tensor_name(graph.tensors[index])
        stored = self._editor.add_constant(name, values)
        if not values.size:
            self._empty.add(stored)
        return stored

    def _without_neutral(
        self, kind: str, operator: Any, inputs: Sequence[int], known: Sequence[Array | None]
    ) -> int | None:
        """Return the result of adding zero to a tensor, or of multiplying it by zero; None otherwise."""
        if kind not in {"ADD", "SUB", "MUL"} or self._editor.activation(operator):
            return None
        for value, other, second in ((known[0], inputs[1], False), (known[1], inputs[0], True)):
            if value is None or value.dtype != np.float32 or np.any(value):
                continue
            shape = np.broadcast_shapes(value.shape, self._editor.shape(other))
            if kind == "MUL":
                return self._editor.add_constant("zero", np.zeros(shape, np.float32))
            if shape == self._editor.shape(other) and (kind == "ADD" or second):
                return other
        return None

    def _joined_tensor(self, axis: int, inputs: Sequence[int], operators: list[Any]) -> int:
        """Return the tensor that holds the parts one after another."""
        parts: list[int] = []
        for index in inputs:
            joined = self._joined.get(index)
            inner = joined.parts if joined is not None and joined.axis == axis else (index,)
            parts += [each for each in inner if each not in self._empty]
        if len(parts) < 2:
            return parts[0] if parts else inputs[0]
        values = [self._editor.constant(index) for index in parts]
        known = [value for value in values if value is not None]
        name = f"{self._editor.name(parts[0])}.joined"
        if len(known) == len(parts):
            return self._editor.add_constant(name, np.concatenate(known, axis))
        shapes = [self._editor.shape(index) for index in parts]
        shape = list(shapes[0])
        shape[axis] = sum(each[axis] for each in shapes)
        target = self._editor.add_tensor(name, shape, self._editor.graph.tensors[parts[0]].type)
        operators.append(self._editor.operation("CONCATENATION", parts, target, axis=axis))
        self._joined[target] = _Joined(axis=axis, parts=tuple(parts))
        return target

    def _slice(self, source: int, begin: Array, size: Array, operators: list[Any]) -> list[int]:
        shape = self._editor.shape(source)
        starts = [int(each) for each in begin]
        sizes = [
            full - start if int(each) < 0 else int(each)
            for each, start, full in zip(size, starts, shape, strict=True)
        ]
        return [self._cut(source, starts, sizes, operators)]

    def _cut(self, source: int, starts: Sequence[int], sizes: Sequence[int], operators: list[Any]) -> int:
        """Return the tensor that holds a box of another one."""
        editor = self._editor
        shape = editor.shape(source)
        if list(sizes) == list(shape):
            return source
        name = f"{editor.name(source)}.slice"
        value = editor.constant(source)
        if value is not None or 0 in sizes:
            box = tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))
            values = value[box] if value is not None else np.zeros(sizes, np.float32)
            stored = editor.add_constant(name, values)
            if 0 in sizes:
                self._empty.add(stored)
            return stored
        cut = [axis for axis, full in enumerate(shape) if sizes[axis] != full]
        joined = self._joined.get(source)
        if joined is not None and cut == [joined.axis]:
            return self._joined_tensor(
                joined.axis, self._cut_parts(joined, starts, sizes, operators), operators
            )
        target = editor.add_tensor(name, sizes, editor.graph.tensors[source].type)
        given = [editor.add_constant(f"{name}.box", np.array(each, np.int32)) for each in (starts, sizes)]
        operators.append(editor.operation("SLICE", [source, *given], target))
        return target

    def _cut_parts(
        self, joined: _Joined, starts: Sequence[int], sizes: Sequence[int], operators: list[Any]
    ) -> list[int]:
        low, high = starts[joined.axis], starts[joined.axis] + sizes[joined.axis]
        parts, offset = [], 0
        for part in joined.parts:
            shape = self._editor.shape(part)
            length = shape[joined.axis]
            first, last = max(low - offset, 0), min(high - offset, length)
            if first < last:
                inner_starts, inner_sizes = [0] * len(shape), list(shape)
                inner_starts[joined.axis], inner_sizes[joined.axis] = first, last - first
                parts.append(self._cut(part, inner_starts, inner_sizes, operators))
            offset += length
        return parts

    def _update(self, inputs: Sequence[int], operators: list[Any]) -> list[int] | None:
        """Return the tensor with a part written over, as a CONCATENATION where one axis is cut."""
        editor = self._editor
        start = editor.constant(inputs[2])
        if start is None:
            return None
        shape, part = editor.shape(inputs[0]), editor.shape(inputs[1])
        cut = [axis for axis, full in enumerate(shape) if part[axis] != full]
        if not cut:
            return [inputs[1]]
        if len(cut) > 1:
            return None
        axis = cut[0]
        first = int(np.clip(int(start[axis]), 0, shape[axis] - part[axis]))
        pieces = []
        for low, high in ((0, first), (first + part[axis], shape[axis])):
            starts, sizes = [0] * len(shape), list(shape)
            starts[axis], sizes[axis] = low, high - low
            pieces.append(self._cut(inputs[0], starts, sizes, operators))
        return [self._joined_tensor(axis, [pieces[0], inputs[1], pieces[1]], operators)]
