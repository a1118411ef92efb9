"""States that a model gives as outputs and takes as inputs at the next step.

The file says it, in a metadata entry `edgeq_states`: a JSON list of pairs of tensor names, input first. So
whatever reads the file knows its states.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.data.array_names import plain
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import HasGraph, Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.values import CarriedState, TensorInfo

ENTRY = b"edgeq_states"
_OF_STATES = frozenset(
    {"state", "states", "hidden", "cell", "memory", "cache", "h", "c", "hx", "cx", "rnn", "gru", "lstm"}
)
"""Words of which the name of a state has one."""
_AT_INPUTS = frozenset({"in", "input", "prev", "previous", "old", "0"})
_AT_OUTPUTS = frozenset({"out", "output", "next", "new", "n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The states of a model, and a note on how they were recognized; None where the user or the file says."""

    states: tuple[CarriedState, ...]
    note: str | None = None


def carried(model: Model, pairs: Sequence[tuple[str, str]] = ()) -> Carried:
    """Return the states of a model: those of the user, else those of the file, else those with certain names.

    Args:
        pairs: (input, output) by name.

    Raises:
        ConverterError: EQ341 an input or output is unknown, or they do not fit.
    """
    if pairs:
        return Carried(states=by_names(model, pairs))
    known = read(model)
    if known:
        return Carried(states=known)
    named = certain(model)
    if not named:
        return Carried(states=())
    shown = ", ".join(f"`{model.outputs[s.output].name}` feeds `{model.inputs[s.input].name}`" for s in named)
    return Carried(states=named, note=f"states by their names, from step to step: {shown}")


def read(source: HasGraph) -> tuple[CarriedState, ...]:
    """Return the states that the file names, as far as the main graph has them."""
    pairs = _entry(source.parsed)
    if not pairs:
        return ()
    graph = source.parsed.subgraphs[0]
    names = [
        [tflite_file.tensor_name(graph.tensors[i]) for i in tflite_file.index_list(ends)]
        for ends in (graph.inputs, graph.outputs)
    ]
    return tuple(
        CarriedState(input=names[0].index(given), output=names[1].index(taken))
        for given, taken in pairs
        if given in names[0] and taken in names[1]
    )


def _entry(parsed: Any) -> list[tuple[str, str]]:
    for entry in parsed.metadata or []:
        content = parsed.buffers[entry.buffer].data if entry.name == ENTRY else None
        if content is None:
            continue
        try:
            listed = json.loads(bytes(bytearray(content)))
            return [(str(given), str(taken)) for given, taken in listed]
        except (ValueError, TypeError):
            return []  # another program's entry of this name
    return []


def declared(model: Model, states: Sequence[CarriedState]) -> Model:
    """Return the model with an entry that names its states; the same value where it has that entry."""
    if tuple(states) == read(model):
        return model
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    inputs, outputs = tflite_file.index_list(graph.inputs), tflite_file.index_list(graph.outputs)
    pairs = [
        [tflite_file.tensor_name(graph.tensors[i]) for i in (inputs[each.input], outputs[each.output])]
        for each in states
    ]
    kept = [entry for entry in editor.parsed.metadata or [] if entry.name != ENTRY]
    if pairs:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(json.dumps(pairs).encode(), np.uint8)
        editor.parsed.buffers.append(buffer)
        entry = schema.MetadataT()
        entry.name, entry.buffer = ENTRY, len(editor.parsed.buffers) - 1
        kept.append(entry)
    editor.parsed.metadata = kept
    return editor.pack()


def by_names(model: Model, pairs: Sequence[tuple[str, str]]) -> tuple[CarriedState, ...]:
    """Return the states that a user names.

    Raises:
        ConverterError: EQ341 there is no such input or output, one is named twice, or they do not fit.
    """
    states: list[CarriedState] = []
    for given, taken in pairs:
        place = _position(model.subject, given, model.inputs, "input")
        end = _position(model.subject, taken, model.outputs, "output")
        _require_fit(model, model.inputs[place], model.outputs[end])
        if any(place == each.input or end == each.output for each in states):
            raise ConverterError(
                "EQ341",
                model.subject,
                f"`{given}={taken}` names an input or output that another state has",
                expected="each input and each output once",
                hint="--state INPUT=OUTPUT, once for each state",
            )
        states.append(CarriedState(input=place, output=end))
    return tuple(states)


def _position(subject: str, name: str, infos: Sequence[TensorInfo], what: str) -> int:
    names = [info.name for info in infos]
    if name in names:
        return names.index(name)
    plains = [plain(each) for each in names]
    if plains.count(name) == 1:
        return plains.index(name)
    raise ConverterError(
        "EQ341",
        subject,
        f"the model has no {what} `{name}`, which a state names",
        expected=f"one of {', '.join(names)}",
        got=name,
        hint="--state INPUT=OUTPUT: the output is the input's value at the next step",
    )


def _require_fit(model: Model, given: TensorInfo, taken: TensorInfo) -> None:
    if not _fit(given, taken):
        raise ConverterError(
            "EQ341",
            model.subject,
            f"the output `{taken.name}` cannot be the next value of the input `{given.name}`",
            expected=f"{given.dtype} {given.shape}",
            got=f"{taken.dtype} {taken.shape}",
            hint="--state INPUT=OUTPUT: shapes and types of both must be the same",
        )


def _fit(given: TensorInfo, taken: TensorInfo) -> bool:
    return given.shape == taken.shape and given.dtype == taken.dtype


def certain(model: Model) -> tuple[CarriedState, ...]:
    """Return the states that names and shapes make certain, such as `state` and `stateN`, `h_in` and `h_out`.

    A name has a word of states. The model has another input, and each state has one partner.
    """
    inputs = [(n, _stem(info.name, _AT_INPUTS)) for n, info in enumerate(model.inputs)]
    outputs = [(n, _stem(info.name, _AT_OUTPUTS)) for n, info in enumerate(model.outputs)]
    states = []
    for place, stem in inputs:
        if stem is None:
            continue
        partners = [end for end, other in outputs if other == stem]
        rivals = [n for n, other in inputs if other == stem]
        if len(partners) == len(rivals) == 1 and _fit(model.inputs[place], model.outputs[partners[0]]):
            states.append(CarriedState(input=place, output=partners[0]))
    return tuple(states) if len(states) < len(model.inputs) else ()


def possible(
    inputs: Sequence[TensorInfo], pairs: Sequence[tuple[str, str]] = (), *, subject: str
) -> tuple[int, ...]:
    """Return the positions of the inputs that may be states, before the outputs are known.

    Args:
        subject: the source, for messages.

    Raises:
        ConverterError: EQ341 there is no such input.
    """
    if pairs:
        return tuple(_position(subject, name, inputs, "input") for name, _ in pairs)
    named = tuple(n for n, info in enumerate(inputs) if _stem(info.name, _AT_INPUTS) is not None)
    return named if len(named) < len(inputs) else ()


def _stem(name: str, affixes: frozenset[str]) -> tuple[str, ...] | None:
    """Return the words of a name without those that say at which end it is; None for no state's name."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", plain(name))]
    # The last hidden state is called hn, the first one h0.
    words = ["h", "n"] if words == ["hn"] else ["c", "n"] if words == ["cn"] else words
    left = tuple(word for word in words if word not in affixes)
    return left if _OF_STATES.intersection(left) else None


T = TypeVar("T")


def tied(model: Model, ranges: Mapping[str, T], join: Callable[[T, T], T]) -> dict[str, T]:
    """Return ranges in which each state has one range at both ends.

    Args:
        join: of two ranges, the one that holds both.
    """
    result = dict(ranges)
    for state in read(model):
        graph = model.graph
        ends = graph.inputs[state.input], graph.outputs[state.output]
        given, taken = (tflite_file.tensor_name(graph.tensors[int(i)]) for i in ends)
        if given in result and taken in result:
            result[given] = result[taken] = join(result[given], result[taken])
    return result


def with_one_scale(model: Model) -> Model:
    """Return an integer model whose states have the same scale, zero point and type at both ends.

    Where an operation has a scale that its kernel fixes, a QUANTIZE gives the output that of the input.
    """
    uneven = [each for each in read(model) if not _is_even(model, each)]
    if not uneven:
        return model
    states = read(model)
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    for state in uneven:
        place = tflite_file.index_list(editor.graph.inputs)[state.input]
        end = tflite_file.index_list(editor.graph.outputs)[state.output]
        name = editor.name(end)
        kind = editor.graph.tensors[place].type
        target = editor.add_tensor(f"{name}.fed_back", editor.shape(end), kind)
        editor.graph.tensors[target].quantization = editor.graph.tensors[place].quantization
        editor.rename(end, f"{name}.before")
        editor.rename(target, name)
        editor.append("QUANTIZE", [end], target)
        indices = tflite_file.index_list(editor.graph.outputs)
        indices[state.output] = target
        editor.graph.outputs = np.array(indices, np.int32)
        _move_entry(edited.parsed, end, target, model.outputs[state.output].name)
    return declared(edited.pack(), states)


def _is_even(model: Model, state: CarriedState) -> bool:
    given, taken = model.inputs[state.input], model.outputs[state.output]
    same = (given.dtype, given.scale, given.zero_point) == (taken.dtype, taken.scale, taken.zero_point)
    return same or given.scale is None or taken.scale is None


def _move_entry(parsed: Any, old: int, new: int, name: str) -> None:
    for signature in parsed.signatureDefs or []:
        for entry in signature.outputs or [] if signature.subgraphIndex == 0 else []:
            if int(entry.tensorIndex) == old and entry.name.decode(errors="replace") == name:
                entry.tensorIndex = new
