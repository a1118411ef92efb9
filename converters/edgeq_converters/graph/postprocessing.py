"""The post-processing of detections at the end of a model, which stays float behind integer heads.

It sorts and compares boxes by their scores; no kernel does that in integers. So it is taken off before a
model is quantized, and put back afterwards, with DEQUANTIZE before it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

_SUPPRESSIONS = frozenset({"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"})
KINDS = frozenset({"CUSTOM TFLite_Detection_PostProcess", *_SUPPRESSIONS})
REASON = "post-processing of detections"
"""How the reasons of the op report begin for these operations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """A model without its post-processing.

    Attributes:
        model: the same value where there is none. Its outputs are those of the whole model that the
            post-processing does not compute, and then what the post-processing reads.
        read: names of the tensors that the post-processing reads.
    """

    model: Model
    read: tuple[str, ...] = ()


def positions(parsed: Any) -> frozenset[int]:
    """Return the positions, in the main graph, of these operations and of all that read their results."""
    return _positions(parsed, KINDS)


def _positions(parsed: Any, kinds: frozenset[str]) -> frozenset[int]:
    computed: set[int] = set()
    chosen: set[int] = set()
    for number, operator in enumerate(parsed.subgraphs[0].operators):
        reads = computed.intersection(tflite_file.index_list(operator.inputs))
        if reads or tflite_file.op_name(parsed, operator) in kinds:
            chosen.add(number)
            computed.update(tflite_file.index_list(operator.outputs))
    return frozenset(chosen)


def outputs(parsed: Any) -> frozenset[int]:
    """Return the positions of the outputs that the post-processing computes."""
    return _outputs(parsed, positions(parsed))


def selected_outputs(parsed: Any) -> frozenset[int]:
    """Return the positions of the outputs that NON_MAX_SUPPRESSION and what follows it compute."""
    return _outputs(parsed, _positions(parsed, _SUPPRESSIONS))


def _outputs(parsed: Any, operators: frozenset[int]) -> frozenset[int]:
    graph = parsed.subgraphs[0]
    made = {i for number in operators for i in tflite_file.index_list(graph.operators[number].outputs)}
    return frozenset(
        place for place, index in enumerate(tflite_file.index_list(graph.outputs)) if index in made
    )


def detach(model: Model) -> Detached:
    """Return a model without the post-processing of detections, as far as it computes anything else.

    A post-processing that reads an input of the model stays.
    """
    chosen = positions(model.parsed)
    if not chosen:
        return Detached(model=model)
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    graph = editor.graph
    tail = [operator for number, operator in enumerate(graph.operators) if number in chosen]
    made = {index for operator in tail for index in tflite_file.index_list(operator.outputs)}
    read = _read(editor, tail, made)
    if not read or any(editor.producer(index) is None for index in read):
        return Detached(model=model)
    kept = [index for index in tflite_file.index_list(graph.outputs) if index not in made]
    graph.operators = [operator for number, operator in enumerate(graph.operators) if number not in chosen]
    ends = [*kept, *(index for index in read if index not in kept)]
    graph.outputs = np.array(ends, np.int32)
    for signature in edited.parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            signature.outputs = [_entry(editor.name(index), index) for index in ends]
    return Detached(model=without_dead(edited.pack()), read=tuple(editor.name(index) for index in read))


def _read(editor: GraphEditor, tail: list[Any], made: set[int]) -> list[int]:
    every = [index for operator in tail for index in tflite_file.index_list(operator.inputs)]
    return [
        index
        for index in dict.fromkeys(every)
        if index >= 0
        and index not in made
        and not tflite_file.is_constant(editor.parsed, editor.graph.tensors[index])
    ]


def attach(head: Model, detached: Detached, original: Model) -> Model:
    """Return a quantized model with the post-processing of the original.

    Args:
        head: made of `detached.model`, with the same outputs in order.
        original: the float model before its post-processing was taken off.
    """
    if not detached.read:
        return head
    edited = Editor(head)
    editor = GraphEditor(edited.parsed)
    source = original.parsed
    old = source.subgraphs[0]
    names = {tflite_file.tensor_name(tensor): index for index, tensor in enumerate(old.tensors)}
    before = tflite_file.index_list(detached.model.graph.outputs)
    ends = tflite_file.index_list(editor.graph.outputs)
    new: dict[int, int] = {}  # by the index in the original
    for index, end in zip(before, ends, strict=True):
        new[names[tflite_file.tensor_name(detached.model.graph.tensors[index])]] = end
    kept = dict(new)
    for name in detached.read:
        new[names[name]] = _real(editor, new[names[name]], old.tensors[names[name]])
    for number in sorted(positions(source)):
        operator = copy.copy(old.operators[number])
        operator.opcodeIndex = _code(edited.parsed, source.operatorCodes[operator.opcodeIndex])
        for index in tflite_file.tensor_indices(operator):
            if index not in new:
                new[index] = _copied(editor, source, old.tensors[index])
        operator.inputs = np.array(
            [new.get(i, -1) for i in tflite_file.index_list(operator.inputs)], np.int32
        )
        operator.outputs = np.array([new[i] for i in tflite_file.index_list(operator.outputs)], np.int32)
        editor.operators.append(operator)
    indices = [kept.get(index, new[index]) for index in tflite_file.index_list(old.outputs)]
    editor.graph.outputs = np.array(indices, np.int32)
    for signature in edited.parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            signature.outputs = [
                _entry(info.name, index) for info, index in zip(original.outputs, indices, strict=True)
            ]
    return edited.pack()


def _real(editor: GraphEditor, index: int, like: Any) -> int:
    """Return a tensor's real values: of integers, by a DEQUANTIZE."""
    if editor.type_name(index) not in {"INT8", "INT16"} or tflite_file.type_name(like) != "FLOAT32":
        return index
    target = editor.add_tensor(f"{tflite_file.tensor_name(like)}.real", editor.shape(index))
    editor.append("DEQUANTIZE", [index], target)
    return target


def _copied(editor: GraphEditor, source: Any, tensor: Any) -> int:
    own = copy.copy(tensor)
    own.buffer = 0
    if tflite_file.is_constant(source, tensor):
        editor.parsed.buffers.append(source.buffers[tensor.buffer])
        own.buffer = len(editor.parsed.buffers) - 1
    editor.graph.tensors.append(own)
    return len(editor.graph.tensors) - 1


def _code(parsed: Any, given: Any) -> int:
    for number, code in enumerate(parsed.operatorCodes):
        same = max(code.builtinCode, code.deprecatedBuiltinCode) == max(
            given.builtinCode, given.deprecatedBuiltinCode
        )
        if same and code.customCode == given.customCode:
            code.version = max(code.version, given.version)
            return number
    parsed.operatorCodes.append(copy.copy(given))
    return len(parsed.operatorCodes) - 1


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry
