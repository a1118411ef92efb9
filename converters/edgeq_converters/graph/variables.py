"""Variables of a streaming model: taken out as inputs and outputs before it is quantized, and put back after.

A resource variable (VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE) keeps a state from one inference to the next.
As an input and an output, the state can be recorded, corrected and judged as that of any other model. In the
integer model the variable holds integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import carried_states, tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.values import CarriedState

Array = npt.NDArray[Any]
_KINDS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})
_DTYPES: dict[int, npt.DTypeLike] = {schema.TensorType.INT8: np.int8, schema.TensorType.INT16: np.int16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variable:
    """One variable.

    Attributes:
        container, name: by which the runtime knows it.
        initial: its first value, float32.
        state: the input and the output that it became.
    """

    container: bytes
    name: bytes
    initial: Array
    state: CarriedState


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detached:
    """A model without variables.

    Attributes:
        model: with an input and an output, after all others, for each variable; the same value without any.
    """

    model: Model
    variables: tuple[Variable, ...] = ()

    @property
    def initial(self) -> dict[int, Array]:
        """The first value of each variable, by the position of its input."""
        return {each.state.input: each.initial for each in self.variables}


def detach(model: Model) -> Detached:
    """Return a float model with its variables as inputs and outputs; those never assigned become constants.

    The model stays as it is where a variable has no constant first value, is used inside a loop, or is
    assigned before it is read.
    """
    if not any(tflite_file.op_name(model.parsed, each) == "VAR_HANDLE" for each in model.graph.operators):
        return Detached(model=model)
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    first = _first_values(edited.parsed)
    rewired = _rewired(editor, first)
    if rewired is None:
        return Detached(model=model)
    known = carried_states.read(model)
    edited.parsed.subgraphs = edited.parsed.subgraphs[:1]
    places = len(tflite_file.index_list(model.graph.inputs)), len(tflite_file.index_list(model.graph.outputs))
    variables = []
    for number, (key, read, assigned) in enumerate(rewired):
        _add_end(editor, "inputs", read, f"variable_{number}")
        _add_end(editor, "outputs", assigned, f"next_variable_{number}")
        state = CarriedState(input=places[0] + number, output=places[1] + number)
        variables.append(Variable(container=key[0], name=key[1], initial=first[key], state=state))
    states = (*known, *(each.state for each in variables))
    plain = _with_names_of(model, normalize(without_dead(edited.pack())))
    return Detached(model=carried_states.declared(plain, states), variables=tuple(variables))


def _with_names_of(model: Model, plain: Model) -> Model:
    """Return the model whose first outputs have the names of the original ones.

    A value that is read from a variable and is an output too is now an input and its copy.
    """
    outputs = tflite_file.index_list(plain.graph.outputs)
    expected = [
        tflite_file.tensor_name(model.graph.tensors[index])
        for index in tflite_file.index_list(model.graph.outputs)
    ]
    ends = [
        *tflite_file.index_list(plain.graph.inputs)[: len(tflite_file.index_list(model.graph.inputs))],
        *outputs[: len(expected)],
    ]
    names = [tflite_file.tensor_name(each) for each in plain.graph.tensors]
    if [names[index] for index in outputs[: len(expected)]] == expected:
        return plain
    edited = Editor(plain)
    editor = GraphEditor(edited.parsed)
    for index, name in zip(outputs, expected, strict=False):
        if names[index] == name:
            continue
        if name in names and names.index(name) not in ends:
            editor.rename(names.index(name), f"{name}.read")
        editor.rename(index, name)
    return edited.pack()


Key = tuple[bytes, bytes]


def _first_values(parsed: Any) -> dict[Key, Array]:
    """Return the constants that the graphs of CALL_ONCE assign."""
    first: dict[Key, Array] = {}
    calls = [
        each for each in parsed.subgraphs[0].operators if tflite_file.op_name(parsed, each) == "CALL_ONCE"
    ]
    numbers = dict.fromkeys(int(each.builtinOptions.initSubgraphIndex) for each in calls)
    for graph in [parsed.subgraphs[number] for number in numbers]:
        handles = _handles(parsed, graph)
        for operator in graph.operators:
            if tflite_file.op_name(parsed, operator) != "ASSIGN_VARIABLE":
                continue
            handle, value = (int(index) for index in operator.inputs)
            tensor = graph.tensors[value]
            constant = tflite_file.is_constant(parsed, tensor)
            if handle in handles and constant and tflite_file.type_name(tensor) == "FLOAT32":
                data = np.asarray(parsed.buffers[tensor.buffer].data, np.uint8).tobytes()
                shape = tuple(tflite_file.index_list(tensor.shape))
                first[handles[handle]] = np.frombuffer(data, np.float32).reshape(shape)
    return first


def _handles(parsed: Any, graph: Any) -> dict[int, Key]:
    return {
        int(operator.outputs[0]): (
            operator.builtinOptions.container or b"",
            operator.builtinOptions.sharedName or b"",
        )
        for operator in graph.operators
        if tflite_file.op_name(parsed, operator) == "VAR_HANDLE"
    }


def _rewired(editor: GraphEditor, first: dict[Key, Array]) -> list[tuple[Key, int, int]] | None:
    """Take the operations on variables out; return (variable, what is read, what is assigned) of each.

    None where that cannot be done.
    """
    handles = _handles(editor.parsed, editor.graph)
    if not set(handles.values()) <= set(first) or not _only_here(editor, handles):
        return None
    read: dict[Key, int] = {}
    current: dict[Key, int] = {}
    for operator in list(editor.operators):
        kind = editor.kind(operator)
        if kind == "READ_VARIABLE":
            key, value = handles[int(operator.inputs[0])], int(operator.outputs[0])
            if key in current:
                editor.redirect(value, current[key])
            else:
                read[key] = current[key] = value
        elif kind == "ASSIGN_VARIABLE":
            key = handles[int(operator.inputs[0])]
            if key not in read:
                return None
            current[key] = int(operator.inputs[1])
        if kind in _KINDS:
            editor.remove(operator)
            editor.reindex()
    for key, value in read.items():
        editor.graph.tensors[value].shape = np.array(first[key].shape, np.int32)
        editor.graph.tensors[value].shapeSignature = None
        if current[key] == value:
            editor.make_constant(value, first[key])
    return [(key, value, current[key]) for key, value in read.items() if current[key] != value]


def _only_here(editor: GraphEditor, handles: dict[int, Key]) -> bool:
    """Return whether only the main graph's own operations use the variables."""
    others = [each for each in editor.operators if editor.kind(each) not in _KINDS]
    used = {index for each in others for index in tflite_file.tensor_indices(each)}
    own = {index for each in editor.operators if each not in others for index in each.inputs}
    resources = {index for index in own if editor.type_name(int(index)) == "RESOURCE"}
    return not used & set(handles) and resources <= set(handles)


def _add_end(editor: GraphEditor, side: str, index: int, name: str) -> None:
    ends = [*tflite_file.index_list(getattr(editor.graph, side)), index]
    setattr(editor.graph, side, np.array(ends, np.int32))
    for signature in editor.parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), index
            setattr(signature, side, [*(getattr(signature, side) or []), entry])


def attach(integer: Model, detached: Detached, known: Sequence[CarriedState]) -> Model:
    """Return an integer model, made of `detached.model`, with variables in place of their inputs and outputs.

    Args:
        known: the states of the original model, which stay inputs and outputs.
    """
    if not detached.variables:
        return integer
    edited = Editor(integer)
    editor = GraphEditor(edited.parsed)
    initial = _Initial(editor)
    inputs = tflite_file.index_list(editor.graph.inputs)
    outputs = tflite_file.index_list(editor.graph.outputs)
    begin: list[Any] = []
    end: list[Any] = []
    for variable in detached.variables:
        read, value = _integers(editor, inputs[variable.state.input], outputs[variable.state.output])
        handle = editor.add_tensor(
            f"{variable.name.decode(errors='replace')}.handle", (), schema.TensorType.RESOURCE
        )
        begin += [
            _var_handle(editor, variable, handle),
            _operation(editor, "READ_VARIABLE", [handle], [read]),
        ]
        end.append(_operation(editor, "ASSIGN_VARIABLE", [handle, value], []))
        initial.add(variable, editor.graph.tensors[read])
    once = _operation(editor, "CALL_ONCE", [], [], initSubgraphIndex=len(edited.parsed.subgraphs))
    edited.parsed.subgraphs.append(initial.graph)
    editor.graph.operators = [once, *begin, *editor.graph.operators, *end]
    count = len(detached.variables)
    _drop_ends(editor, inputs[-count:], outputs[-count:])
    editor.reindex()
    for index in outputs[-count:]:
        producer = editor.producer(index, "DEQUANTIZE")
        if producer is not None and not editor.readers(index) and not editor.is_output(index):
            editor.remove(producer)
            editor.reindex()
    return carried_states.declared(edited.pack(), known)


def _drop_ends(editor: GraphEditor, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    for side, dropped in (("inputs", inputs), ("outputs", outputs)):
        left = tflite_file.index_list(getattr(editor.graph, side))[: -len(dropped)]
        setattr(editor.graph, side, np.array(left, np.int32))
        for signature in editor.parsed.signatureDefs or []:
            if signature.subgraphIndex == 0:
                entries = [each for each in getattr(signature, side) if int(each.tensorIndex) not in dropped]
                setattr(signature, side, entries)


def _integers(editor: GraphEditor, read: int, value: int) -> tuple[int, int]:
    """Return the integer tensors of a state inside a model with float inputs and outputs, with one scale."""
    producer = editor.producer(value, "DEQUANTIZE")
    if producer is not None:
        value = int(producer.inputs[0])

    def scale_of(index: int) -> tuple[float, int] | None:
        return tflite_file.quantization(editor.graph.tensors[index])

    readers = editor.readers(read)
    if editor.type_name(read) == "FLOAT32" and {editor.kind(each) for each in readers} == {"QUANTIZE"}:
        forms = [int(each.outputs[0]) for each in readers]
        # A reader may need another scale, as a CONCATENATION does: it is made of the state's own integers.
        inner = next((form for form in forms if scale_of(form) == scale_of(value)), forms[0])
        for each, form in zip(list(readers), forms, strict=True):
            if scale_of(form) == scale_of(inner):
                editor.redirect(form, inner)
                editor.remove(each)
            else:
                each.inputs = np.array([inner], np.int32)
        editor.reindex()
        read = inner
    given, taken = editor.graph.tensors[read], editor.graph.tensors[value]
    same = given.type == taken.type
    if same and tflite_file.quantization(given) == tflite_file.quantization(taken):
        return read, value
    target = editor.add_tensor(f"{editor.name(value)}.kept", editor.shape(value), given.type)
    editor.graph.tensors[target].quantization = given.quantization
    floats = [editor.type_name(each) == "FLOAT32" for each in (value, target)]
    editor.append("DEQUANTIZE" if floats[1] and not floats[0] else "QUANTIZE", [value], target)
    return read, target


class _Initial:
    """The graph that gives the variables their first values."""

    def __init__(self, editor: GraphEditor) -> None:
        self._editor = editor
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs = self.graph.outputs = np.zeros(0, np.int32)
        self.graph.name = b"first values"

    def add(self, variable: Variable, like: Any) -> None:
        """Add a variable, whose values are of the type and scale of a tensor."""
        values = variable.initial
        pair = tflite_file.quantization(like)
        kind = _DTYPES.get(int(like.type))
        if kind is not None and pair is not None:
            limits = np.iinfo(np.dtype(kind).name)
            steps = np.rint(values.astype(np.float64) / pair[0]) + pair[1]
            values = np.clip(steps, limits.min, limits.max).astype(kind)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._editor.parsed.buffers.append(buffer)
        handle, constant = schema.TensorT(), schema.TensorT()
        handle.name, handle.type, handle.shape, handle.buffer = (
            b"%s.first" % variable.name,
            schema.TensorType.RESOURCE,
            np.zeros(0, np.int32),
            0,
        )
        constant.name, constant.type = b"%s.value" % variable.name, like.type
        constant.shape = np.array(values.shape, np.int32)
        constant.buffer, constant.quantization = len(self._editor.parsed.buffers) - 1, like.quantization
        place = len(self.graph.tensors)
        self.graph.tensors += [handle, constant]
        self.graph.operators.append(_var_handle(self._editor, variable, place))
        self.graph.operators.append(_operation(self._editor, "ASSIGN_VARIABLE", [place, place + 1], []))


def _var_handle(editor: GraphEditor, variable: Variable, handle: int) -> Any:
    return _operation(
        editor, "VAR_HANDLE", [], [handle], container=variable.container, sharedName=variable.name
    )


_OPTIONS = {
    "VAR_HANDLE": "VarHandleOptions",
    "READ_VARIABLE": "ReadVariableOptions",
    "ASSIGN_VARIABLE": "AssignVariableOptions",
    "CALL_ONCE": "CallOnceOptions",
}


def _operation(
    editor: GraphEditor, kind: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any
) -> Any:
    operator = editor.operation(kind, inputs, outputs)
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[kind])
    operator.builtinOptions = getattr(schema, f"{_OPTIONS[kind]}T")()
    for field, value in options.items():
        setattr(operator.builtinOptions, field, value)
    return operator
