"""A float model whose weights were stored in float16, as one of float32, which is a source again."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import edit, tflite_file


def widened(model: Any) -> int:
    """Turn float16 constants behind a DEQUANTIZE into float32 ones, in place, and return how many.

    That is how TFLiteConverter and this package write float16 weights: a DEQUANTIZE at the start of each
    inference widens them, so that the widened model computes the same values to the last bit. Anything else
    in float16 (an activation, a constant that is read as it is) stays and is refused later by its name.
    """
    found = 0
    for graph in model.subgraphs:
        outputs = {int(index) for index in graph.outputs}
        kept = []
        for operator in graph.operators:
            source = graph.tensors[int(operator.inputs[0])] if _is_dequantize(model, operator) else None
            if source is None or not _is_half_constant(model, source) or int(operator.outputs[0]) in outputs:
                kept.append(operator)
                continue
            target = graph.tensors[int(operator.outputs[0])]
            stored = np.asarray(model.buffers[source.buffer].data, np.uint8).tobytes()
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.frombuffer(stored, "<f2").astype("<f4").tobytes(), np.uint8)
            model.buffers.append(buffer)
            target.buffer = len(model.buffers) - 1
            found += 1
        graph.operators = kept
    if found:
        _release(model)
    return found


def as_float32(data: bytes, *, subject: str) -> tuple[bytes, int]:
    """Return (the model in float32, how many constants were widened); the same bytes where none were.

    Raises:
        ConverterError: EQ302, EQ303 as `tflite_file.parse`.
    """
    model = tflite_file.parse(data, subject=subject)
    found = widened(model)
    return (edit.pack(model), found) if found else (data, 0)


def _is_dequantize(model: Any, operator: Any) -> bool:
    return tflite_file.op_name(model, operator) == "DEQUANTIZE"


def _is_half_constant(model: Any, tensor: Any) -> bool:
    return tflite_file.type_name(tensor) == "FLOAT16" and tflite_file.is_constant(model, tensor)


def _release(model: Any) -> None:
    """Drop the float16 constants that nobody reads any more: tensors, and the content of their buffers."""
    for graph in model.subgraphs:
        read = {index for operator in graph.operators for index in tflite_file.tensor_indices(operator)}
        read.update(int(index) for index in (*graph.inputs, *graph.outputs))
        place: dict[int, int] = {}
        tensors: list[Any] = []
        for index, tensor in enumerate(graph.tensors):
            if index not in read and tflite_file.type_name(tensor) == "FLOAT16":
                continue
            place[index] = len(tensors)
            tensors.append(tensor)
        graph.tensors = tensors
        graph.inputs = _moved(graph.inputs, place)
        graph.outputs = _moved(graph.outputs, place)
        for operator in graph.operators:
            operator.inputs, operator.outputs = (
                _moved(operator.inputs, place),
                _moved(operator.outputs, place),
            )
            if operator.intermediates is not None:
                operator.intermediates = _moved(operator.intermediates, place)
        _follow(model, graph, place)
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used.update(entry.buffer for entry in model.metadata or [])
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def _follow(model: Any, graph: Any, place: dict[int, int]) -> None:
    number = next(i for i, other in enumerate(model.subgraphs) if other is graph)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == number:
            for entry in (*(signature.inputs or []), *(signature.outputs or [])):
                entry.tensorIndex = place[int(entry.tensorIndex)]


def _moved(indices: Any, place: dict[int, int]) -> Any:
    if indices is None:
        return None
    return np.array([place.get(int(index), -1) for index in indices], np.int32)
