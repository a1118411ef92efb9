"""Unpack weights that a model stores as float16 or sparse, so that it can be a source again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A model with dense float32 weights.

    Attributes:
        model: the same value where nothing was stored in another form.
        widened: how many constants were float16.
        densified: how many were sparse.
    """

    model: Model
    widened: int
    densified: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user."""
        notes = []
        if self.densified:
            notes.append(
                f"{self.densified} constants are stored sparse; they were unpacked, with the same values"
            )
        if self.widened:
            kind = "stored in float16; they were widened to float32"
            notes.append(f"{self.widened} constants are {kind}, with the same values")
        return tuple(notes)


def unpacked(model: Model) -> Unpacked:
    """Return the model with dense float32 weights.

    TFLiteConverter and this package store float16 weights behind a DEQUANTIZE, and sparse ones behind a
    DENSIFY, which run at the start of each inference. So the unpacked model computes the same values to the
    last bit. Any other float16 tensor (an activation, a constant that an operation reads directly) stays; a
    later check refuses it.

    Raises:
        ConverterError: EQ302, EQ303 the file is not a model, or the runtime does not unpack a constant.
    """
    editor = Editor(model)
    densified = sum(_densify(editor, graph) for graph in editor.parsed.subgraphs)
    widened = _widen(editor.parsed)
    changed = densified + widened > 0
    if changed:
        edit.drop_unused_codes(editor.parsed)
    return Unpacked(model=editor.pack() if changed else model, widened=widened, densified=densified)


def _densify(editor: Editor, graph: Any) -> int:
    """Unpack the sparse constants of a graph, and return how many there were."""
    outputs = {int(index) for index in graph.outputs}
    kept, count = [], 0
    for operator in graph.operators:
        source = graph.tensors[int(operator.inputs[0])] if len(operator.inputs) else None
        unpacks = (
            tflite_file.op_name(editor.parsed, operator) == "DENSIFY"
            and tflite_file.is_constant(editor.parsed, source)
            and int(operator.outputs[0]) not in outputs
        )
        if not unpacks:
            kept.append(operator)
            continue
        target = graph.tensors[int(operator.outputs[0])]
        # The runtime's own kernel reads the formats; XNNPACK does not take an operation without inputs.
        part = edit.extract(editor, [operator], (), tflite_file.index_list(operator.outputs), graph=graph)
        interpreter = Interpreter(part, every_tensor=True)
        interpreter.run([])
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(interpreter.results()[0].tobytes(), np.uint8)
        editor.parsed.buffers.append(buffer)
        target.buffer, target.sparsity = len(editor.parsed.buffers) - 1, None
        count += 1
    graph.operators = kept
    if count:
        _drop_unread(editor.parsed)
    return count


def _widen(parsed: Any) -> int:
    count = 0
    for graph in parsed.subgraphs:
        outputs = {int(index) for index in graph.outputs}
        kept = []
        for operator in graph.operators:
            source = graph.tensors[int(operator.inputs[0])] if _is_dequantize(parsed, operator) else None
            if source is None or not _is_half_constant(parsed, source) or int(operator.outputs[0]) in outputs:
                kept.append(operator)
                continue
            target = graph.tensors[int(operator.outputs[0])]
            stored = np.asarray(parsed.buffers[source.buffer].data, np.uint8).tobytes()
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.frombuffer(stored, "<f2").astype("<f4").tobytes(), np.uint8)
            parsed.buffers.append(buffer)
            target.buffer = len(parsed.buffers) - 1
            count += 1
        graph.operators = kept
    if count:
        _drop_unread(parsed)
    return count


def _is_dequantize(parsed: Any, operator: Any) -> bool:
    return tflite_file.op_name(parsed, operator) == "DEQUANTIZE"


def _is_half_constant(parsed: Any, tensor: Any) -> bool:
    return tflite_file.type_name(tensor) == "FLOAT16" and tflite_file.is_constant(parsed, tensor)


def _drop_unread(parsed: Any) -> None:
    """Drop packed constants that nothing reads any more: their tensors, and the content of their buffers."""
    for graph in parsed.subgraphs:
        read = {index for operator in graph.operators for index in tflite_file.tensor_indices(operator)}
        read.update(int(index) for index in (*graph.inputs, *graph.outputs))
        new_index: dict[int, int] = {}
        tensors: list[Any] = []
        for index, tensor in enumerate(graph.tensors):
            packed = tflite_file.type_name(tensor) == "FLOAT16" or tensor.sparsity is not None
            if index not in read and packed:
                continue
            new_index[index] = len(tensors)
            tensors.append(tensor)
        graph.tensors = tensors
        graph.inputs = _renumbered(graph.inputs, new_index)
        graph.outputs = _renumbered(graph.outputs, new_index)
        for operator in graph.operators:
            operator.inputs, operator.outputs = (
                _renumbered(operator.inputs, new_index),
                _renumbered(operator.outputs, new_index),
            )
            if operator.intermediates is not None:
                operator.intermediates = _renumbered(operator.intermediates, new_index)
        _renumber_signatures(parsed, graph, new_index)
    used = {tensor.buffer for graph in parsed.subgraphs for tensor in graph.tensors}
    used.update(entry.buffer for entry in parsed.metadata or [])
    for number, buffer in enumerate(parsed.buffers):
        if number not in used:
            buffer.data = None


def _renumber_signatures(parsed: Any, graph: Any, new_index: dict[int, int]) -> None:
    number = next(i for i, other in enumerate(parsed.subgraphs) if other is graph)
    for signature in parsed.signatureDefs or []:
        if signature.subgraphIndex == number:
            for entry in (*(signature.inputs or []), *(signature.outputs or [])):
                entry.tensorIndex = new_index[int(entry.tensorIndex)]


def _renumbered(indices: Any, new_index: dict[int, int]) -> Any:
    if indices is None:
        return None
    return np.array([new_index.get(int(index), -1) for index in indices], np.int32)
