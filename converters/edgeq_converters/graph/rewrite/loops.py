"""Loops (WHILE) with a fixed number of steps, written out as the operations of every step.

Keras 3 makes such loops of its recurrent layers. No quantizer looks inside a loop. What depends only on the
number of the step is computed here, and results that are collected step by step become one CONCATENATION.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.folding import Folding
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

Array = npt.NDArray[Any]

MOST_OPERATIONS = 20_000
"""Of a model whose loops are written out. A larger one would take hours to calibrate and correct."""
_BRANCHES = frozenset({"WHILE", "IF"})


class _CannotUnroll(Exception):
    """Why a loop stays."""


def unroll(editor: GraphEditor) -> int:
    """Write out the loops of the main graph; return how many there were.

    A loop inside a loop is written out too, and so is the branch of an IF that is always taken.

    Raises:
        ConverterError: EQ337 the number of steps is not fixed, or the result would be too large.
    """
    count = sum(editor.kind(operator) in _BRANCHES for operator in editor.operators)
    if not count:
        return 0
    _write_shapes(editor)
    inliner = _Inliner(editor)
    try:
        inliner.rewrite_main()
    except _CannotUnroll as problem:
        raise ConverterError(
            "EQ337",
            editor.subject,
            f"a loop cannot be written out for integers: {problem}",
            expected=f"a fixed number of steps, and at most {MOST_OPERATIONS} operations in all",
            hint="use fewer time steps, or use --scheme dynamic or float16, which keep the loop",
        ) from problem
    drop_unreached_graphs(editor.parsed)
    _write_shapes(editor)
    return count


def drop_unreached_graphs(parsed: Any) -> None:
    """Remove the graphs that nothing names any more; renumber the others."""
    kept = {0, *(int(each.subgraphIndex) for each in parsed.signatureDefs or [])}
    waiting = list(kept)
    while waiting:
        for operator in parsed.subgraphs[waiting.pop()].operators:
            called = {number for _, number in _calls(operator)} - kept
            kept |= called
            waiting += called
    number_of = {old: new for new, old in enumerate(sorted(kept))}
    parsed.subgraphs = [parsed.subgraphs[old] for old in sorted(kept)]
    for graph in parsed.subgraphs:
        for operator in graph.operators:
            for field, number in _calls(operator):
                setattr(operator.builtinOptions, field, number_of[number])
    for signature in parsed.signatureDefs or []:
        signature.subgraphIndex = number_of[int(signature.subgraphIndex)]
    edit.empty_unused_buffers(parsed)


def _calls(operator: Any) -> list[tuple[str, int]]:
    """Return (field of the options, number of the graph) of each graph that an operation names."""
    calls = []
    for options in (operator.builtinOptions, getattr(operator, "builtinOptions2", None)):
        for field, value in vars(options).items() if options is not None else ():
            if field.lower().endswith("subgraphindex") or field == "subgraph":
                calls.append((field, int(value)))
    return calls


def _write_shapes(editor: GraphEditor) -> None:
    """Write the shapes that the tensors of the main graph have in an inference into the graph."""
    model = Model(data=edit.packed(editor.parsed), subject=editor.subject)
    interpreter = Interpreter(model, every_tensor=True)
    interpreter.run([np.zeros(detail["shape"], detail["dtype"]) for detail in interpreter.inputs])
    shapes = interpreter.shapes()
    inputs = set(tflite_file.index_list(editor.graph.inputs))
    computed = {i for operator in editor.operators for i in tflite_file.index_list(operator.outputs)}
    for index in sorted(computed - inputs):
        if index in shapes:
            tensor = editor.graph.tensors[index]
            tensor.shape, tensor.shapeSignature = np.array(shapes[index], np.int32), None


class _Inliner:
    """The operations of the main graph under construction, with those of the graphs that it calls."""

    def __init__(self, editor: GraphEditor) -> None:
        self._editor = editor
        self._operators: list[Any] = []
        self._folding = Folding(editor)
        self._constants: dict[tuple[int, int], int] = {}

    def rewrite_main(self) -> None:
        """Replace the operations of the main graph.

        Raises:
            _CannotUnroll: a loop stays.
        """
        graph = self._editor.graph
        place = {index: index for index in range(len(graph.tensors))}
        self._inline(graph, place, "")
        graph.operators = self._operators
        self._editor.reindex()

    def _inline(self, graph: Any, place: dict[int, int], step: str) -> None:
        """Add the operations of a graph.

        Args:
            place: {tensor of the graph: tensor of the main graph}; the computed ones are added.
            step: the end of the names of tensors that belong to a step of a loop.
        """
        for operator in list(graph.operators):
            inputs = [self._place(graph, place, index) for index in tflite_file.index_list(operator.inputs)]
            outputs = tflite_file.index_list(operator.outputs)
            kind = self._editor.kind(operator)
            if kind == "WHILE":
                results = self._while(operator, inputs, step)
            elif kind == "IF":
                results = self._if(operator, inputs, step)
            else:
                folded = self._folding.fold(graph, operator, inputs, self._operators)
                if folded is None:
                    self._copy(graph, operator, inputs, place, step)
                    continue
                results = folded
            for index, result in zip(outputs, results, strict=True):
                self._set(graph, place, index, result)
            if len(self._operators) > MOST_OPERATIONS:
                raise _CannotUnroll(f"it would have more than {MOST_OPERATIONS} operations")

    def _set(self, graph: Any, place: dict[int, int], index: int, result: int) -> None:
        """Let a tensor of a graph be a tensor of the main graph; an output of the model gets a copy."""
        editor = self._editor
        if graph is editor.graph and editor.is_output(index) and result != index:
            shape = np.array(editor.shape(result), np.int32)
            sizes = editor.add_constant(f"{editor.name(index)}.shape", shape)
            self._operators.append(editor.operation("RESHAPE", [result, sizes], index, newShape=shape))
        else:
            place[index] = result

    def _place(self, graph: Any, place: dict[int, int], index: int) -> int:
        if index < 0:
            return index
        if index not in place:
            tensor = graph.tensors[index]
            if tensor.isVariable or not tflite_file.is_constant(self._editor.parsed, tensor):
                raise _CannotUnroll(f"the tensor {tflite_file.tensor_name(tensor)!r} keeps state inside it")
            key = id(graph), index
            if key not in self._constants:
                self._constants[key] = self._editor.add_copy(tensor)
            place[index] = self._constants[key]
        return place[index]

    def _copy(self, graph: Any, operator: Any, inputs: list[int], place: dict[int, int], step: str) -> None:
        copied = copy.copy(operator)
        copied.inputs = np.array(inputs, np.int32)
        if graph is not self._editor.graph:
            if len(tflite_file.index_list(operator.intermediates)):
                raise _CannotUnroll(f"a {self._editor.kind(operator)} inside it has inner tensors")
            for index in tflite_file.index_list(operator.outputs):
                place[index] = self._editor.add_copy(graph.tensors[index], suffix=step)
            copied.outputs = np.array([place[i] for i in tflite_file.index_list(operator.outputs)], np.int32)
        self._operators.append(copied)

    def _while(self, operator: Any, state: list[int], step: str) -> list[int]:
        options = operator.builtinOptions
        condition = self._editor.parsed.subgraphs[int(options.condSubgraphIndex)]
        body = self._editor.parsed.subgraphs[int(options.bodySubgraphIndex)]
        number = 0
        while self._holds(condition, state):
            if number >= MOST_OPERATIONS:
                raise _CannotUnroll(f"it has more than {MOST_OPERATIONS} steps")
            place = dict(zip(tflite_file.index_list(body.inputs), state, strict=True))
            self._inline(body, place, f"{step}/step{number}")
            state = [self._place(body, place, index) for index in tflite_file.index_list(body.outputs)]
            number += 1
        return state

    def _if(self, operator: Any, inputs: list[int], step: str) -> list[int]:
        value = self._editor.constant(inputs[0])
        if value is None:
            raise _CannotUnroll("the branch of an IF depends on the inputs")
        options = operator.builtinOptions
        number = options.thenSubgraphIndex if bool(value) else options.elseSubgraphIndex
        graph = self._editor.parsed.subgraphs[int(number)]
        place = dict(zip(tflite_file.index_list(graph.inputs), inputs[1:], strict=True))
        self._inline(graph, place, step)
        return [self._place(graph, place, index) for index in tflite_file.index_list(graph.outputs)]

    def _holds(self, graph: Any, state: Sequence[int]) -> bool:
        """Return whether the condition of a loop holds."""
        values: dict[int, Array] = {}
        for index, given in zip(tflite_file.index_list(graph.inputs), state, strict=True):
            value = self._editor.constant(given)
            if value is not None:
                values[index] = value
        for operator in graph.operators:
            self._compute(graph, operator, values)
        result = self._value(graph, int(graph.outputs[0]), values)
        if result is None:
            raise _CannotUnroll("how many steps it has depends on the inputs")
        return bool(result.all())

    def _compute(self, graph: Any, operator: Any, values: dict[int, Array]) -> None:
        inputs = [self._value(graph, index, values) for index in tflite_file.index_list(operator.inputs)]
        known = [value for value in inputs if value is not None]
        if len(known) == len(inputs) and self._folding.is_pure(operator):
            results = self._folding.compute(graph, operator, known)
            values.update(zip(tflite_file.index_list(operator.outputs), results, strict=True))

    def _value(self, graph: Any, index: int, values: Mapping[int, Array]) -> Array | None:
        if index in values:
            return values[index]
        tensor = graph.tensors[index]
        if tflite_file.is_constant(self._editor.parsed, tensor):
            return edit.constant(self._editor.parsed, tensor)
        return None
