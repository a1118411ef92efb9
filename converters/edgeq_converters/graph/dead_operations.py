"""Remove operations whose results nothing reads, as random layers leave them in a graph for inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import HasGraph, Model

# What these do besides computing their outputs is in another graph or in code that is not known here.
_CALLS = frozenset({"CALL", "CUSTOM", "IF", "WHILE", "STABLEHLO_COMPOSITE", "DELEGATE"})
_VARIABLES = frozenset({"ASSIGN_VARIABLE", "READ_VARIABLE"})


def without_dead(model: Model) -> Model:
    """Return the model without the dead operations of its main graph; the same value where there is none.

    An operation is live if an output of the graph or a live operation reads one of its outputs, or if it
    assigns a variable that a live operation reads. Calls of other graphs and custom operations are live; the
    graph that gives variables their first values is, where a live operation uses a variable or it does more.
    Tensors that only dead operations use are removed with them, except inputs and outputs.
    """
    live = _live(model)
    if len(live) == len(model.graph.operators):
        return model
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    initializers = _initializers(editor)
    graph.operators = [operator for number, operator in enumerate(graph.operators) if number in live]
    _drop_graphs(editor.parsed, set(initializers) - set(_initializers(editor)))
    drop_tensors(editor.parsed)
    return editor.pack()


def _live(model: Model) -> set[int]:
    """Return the positions of the live operations of the main graph."""
    graph = model.graph
    names = [tflite_file.op_name(model.parsed, operator) for operator in graph.operators]
    makers: dict[int, list[int]] = {}
    handles: dict[int, str] = {}
    for number, operator in enumerate(graph.operators):
        for index in tflite_file.index_list(operator.outputs):
            makers.setdefault(index, []).append(number)
            if names[number] == "VAR_HANDLE":
                handles[index] = _variable(operator)
    assigners: dict[str, list[int]] = {}
    for number, operator in enumerate(graph.operators):
        if names[number] == "ASSIGN_VARIABLE":
            assigners.setdefault(handles.get(int(operator.inputs[0]), ""), []).append(number)
    waiting = [number for number, name in enumerate(names) if name in _CALLS or name.startswith("HASHTABLE")]
    if _variables_elsewhere(model):
        waiting += [number for each in assigners.values() for number in each]
    waiting += [number for index in _ends(model) for number in makers.get(index, ())]
    live = _reached(model, names, waiting, makers, handles, assigners)
    calls = [number for number, name in enumerate(names) if name == "CALL_ONCE"]
    uses_variables = _variables_elsewhere(model) or any(names[number] in _VARIABLES for number in live)
    return live | {number for number in calls if uses_variables or not _only_assigns(model, number)}


def _reached(
    model: Model,
    names: Sequence[str],
    waiting: list[int],
    makers: Mapping[int, list[int]],
    handles: Mapping[int, str],
    assigners: Mapping[str, list[int]],
) -> set[int]:
    """Return the operations in `waiting` and all that they need."""
    graph = model.graph
    live: set[int] = set()
    while waiting:
        number = waiting.pop()
        if number in live:
            continue
        live.add(number)
        operator = graph.operators[number]
        for index in tflite_file.index_list(operator.inputs):
            waiting += makers.get(index, ())
        if names[number] == "READ_VARIABLE":
            # An assignment whose handle is not known may be of any variable.
            waiting += [*assigners.get(handles.get(int(operator.inputs[0]), ""), ()), *assigners.get("", ())]
    return live


def _variable(operator: Any) -> str:
    options = operator.builtinOptions
    return "" if options is None else f"{options.container!r}/{options.sharedName!r}"


def _initializers(source: HasGraph) -> list[int]:
    """Return the graphs that CALL_ONCE operations of the main graph name."""
    return [
        _initializer(operator)
        for operator in source.parsed.subgraphs[0].operators
        if tflite_file.op_name(source.parsed, operator) == "CALL_ONCE"
    ]


def _initializer(operator: Any) -> int:
    return 0 if operator.builtinOptions is None else int(operator.builtinOptions.initSubgraphIndex)


def _only_assigns(model: Model, number: int) -> bool:
    """Return whether the graph of a CALL_ONCE does nothing but give variables their first values."""
    graph = model.parsed.subgraphs[_initializer(model.graph.operators[number])]
    names = {tflite_file.op_name(model.parsed, operator) for operator in graph.operators}
    return names <= {"VAR_HANDLE", "ASSIGN_VARIABLE"}


def _drop_graphs(parsed: Any, numbers: set[int]) -> None:
    """Remove graphs that nothing calls any more; one that is not the last only loses its operations."""
    signed = {int(signature.subgraphIndex) for signature in parsed.signatureDefs or []}
    for number in sorted(numbers - signed, reverse=True):
        if number == len(parsed.subgraphs) - 1:
            parsed.subgraphs.pop()
        else:
            parsed.subgraphs[number].operators = []


def _variables_elsewhere(model: Model) -> bool:
    """Return whether a graph besides the main one and the initializers uses a variable."""
    initializers = _initializers(model)
    return any(
        tflite_file.op_name(model.parsed, operator) in _VARIABLES
        for number, graph in enumerate(model.parsed.subgraphs)
        if number and number not in initializers
        for operator in graph.operators
    )


def _ends(model: Model) -> list[int]:
    """Return the tensors that the model gives: outputs of the graph and of its signatures."""
    signed = [
        int(entry.tensorIndex)
        for signature in model.parsed.signatureDefs or []
        if signature.subgraphIndex == 0
        for entry in signature.outputs or []
    ]
    return [*tflite_file.index_list(model.graph.outputs), *signed]


def drop_tensors(parsed: Any) -> None:
    """Remove the main graph's tensors that nothing uses, and the values of constants among them."""
    graph = parsed.subgraphs[0]
    entries = [
        entry
        for signature in parsed.signatureDefs or []
        if signature.subgraphIndex == 0
        for entry in (*(signature.inputs or []), *(signature.outputs or []))
    ]
    used = {
        *tflite_file.index_list(graph.inputs),
        *tflite_file.index_list(graph.outputs),
        *(int(entry.tensorIndex) for entry in entries),
        *(
            index
            for operator in graph.operators
            for vector in (operator.inputs, operator.outputs, operator.intermediates)
            for index in tflite_file.index_list(vector)
        ),
    }
    kept = [index for index in range(len(graph.tensors)) if index in used]
    place = {index: number for number, index in enumerate(kept)}
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs = _moved(graph.inputs, place)
    graph.outputs = _moved(graph.outputs, place)
    for entry in entries:
        entry.tensorIndex = place[int(entry.tensorIndex)]
    for operator in graph.operators:
        for attribute in ("inputs", "outputs", "intermediates"):
            vector = getattr(operator, attribute)
            if vector is not None:
                setattr(operator, attribute, _moved(vector, place))
    edit.empty_unused_buffers(parsed)


def _moved(vector: Iterable[int], place: dict[int, int]) -> Any:
    return np.array([place.get(int(index), -1) for index in vector], np.int32)
