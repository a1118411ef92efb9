"""Edits of a parsed .tflite: read and write constants, cut operations out, and pack the result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import HasGraph, Model

Array = npt.NDArray[Any]

_STORED: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "INT8": np.dtype("<i1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}


class Editor:
    """A graph that may be changed: a parsed copy of a model, which `pack` turns into a new model."""

    def __init__(self, model: Model) -> None:
        self.parsed: Any = tflite_file.parse(model.data, subject=model.subject)
        self.subject = model.subject

    def pack(self) -> Model:
        """Return the graph as it now stands."""
        return Model(data=_packed(self.parsed), subject=self.subject)


def _packed(parsed: Any) -> bytes:
    size = sum(len(buffer.data) for buffer in parsed.buffers if buffer.data is not None)
    # Reserve the whole size: a builder that grows doubles and copies. Output() would copy once more.
    builder = flatbuffers.Builder(size + size // 50 + (1 << 16))
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def constant(parsed: Any, tensor: Any) -> Array:
    """Return a copy of a constant's values in its own type and shape.

    Raises:
        KeyError: for a type other than float32, int8, int32 or int64.
    """
    stored = np.asarray(parsed.buffers[tensor.buffer].data, np.uint8).tobytes()
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    return np.frombuffer(stored, _STORED[tflite_file.type_name(tensor)]).reshape(shape).copy()


def set_constant(parsed: Any, tensor: Any, values: Array) -> None:
    """Write a constant's values; the tensor keeps its type and shape.

    Raises:
        ValueError: for another shape.
    """
    if tuple(values.shape) != tuple(int(size) for size in tensor.shape):
        raise ValueError(f"expected the shape {tuple(tensor.shape)}, got {values.shape}")
    dtype = _STORED[tflite_file.type_name(tensor)]
    parsed.buffers[tensor.buffer].data = np.frombuffer(values.astype(dtype).tobytes(), np.uint8)


def scales(tensor: Any) -> npt.NDArray[np.float64]:
    """Return a quantized tensor's scales: one, or one per channel."""
    return np.asarray(tensor.quantization.scale, np.float64)


def set_scales(tensor: Any, values: npt.ArrayLike) -> None:
    """Write a quantized tensor's scales; its zero points stay."""
    tensor.quantization.scale = np.asarray(values, np.float32)


def buffer_users(parsed: Any) -> dict[int, int]:
    """Return {buffer: how many operations and graph outputs read it} of all constants, over all subgraphs."""
    count: dict[int, int] = {}
    for graph in parsed.subgraphs:
        for operator in graph.operators:
            for index in {int(i) for i in operator.inputs if i >= 0}:
                tensor = graph.tensors[index]
                if tflite_file.is_constant(parsed, tensor):
                    count[tensor.buffer] = count.get(tensor.buffer, 0) + 1
        for index in graph.outputs:
            tensor = graph.tensors[int(index)]
            if tflite_file.is_constant(parsed, tensor):
                count[tensor.buffer] = count.get(tensor.buffer, 0) + 1
    return count


def empty_unused_buffers(parsed: Any) -> None:
    """Remove the values of buffers that no tensor and no metadata uses; the others keep their numbers."""
    used = {int(tensor.buffer) for graph in parsed.subgraphs for tensor in graph.tensors}
    used.update(int(entry.buffer) for entry in parsed.metadata or [])
    used.update(int(number) for number in tflite_file.index_list(parsed.metadataBuffer))
    for number, buffer in enumerate(parsed.buffers):
        if number not in used:
            buffer.data = None


def extract_operation(source: HasGraph, operator: Any) -> tuple[Model, tuple[int, ...], tuple[int, ...]]:
    """Return (a model of one operation and its constants, its inputs, its outputs).

    The inputs and outputs are tensor indices of `source`, in the order of the small model's own.
    """
    tensors = source.parsed.subgraphs[0].tensors
    outputs = tuple(int(i) for i in operator.outputs)
    inputs = tuple(
        i
        for i in dict.fromkeys(int(i) for i in operator.inputs)
        if i >= 0 and not tflite_file.is_constant(source.parsed, tensors[i])
    )
    return extract(source, [operator], inputs, outputs), inputs, outputs


def extract(
    source: HasGraph,
    operators: Sequence[Any],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    graph: Any = None,
) -> Model:
    """Return a model of some operations and the constants that they read.

    Args:
        operators: of one graph, in order of execution.
        inputs: indices of the tensors that the operations read and none of them computes.
        outputs: indices of the tensors that the new model returns.
        graph: of the operations; None for the main one.
    """
    parsed = source.parsed
    graph = parsed.subgraphs[0] if graph is None else graph
    read = [i for operator in operators for i in tflite_file.tensor_indices(operator)]
    kept = list(dict.fromkeys([*inputs, *read, *outputs]))
    new_index = {index: number for number, index in enumerate(kept)}
    small = schema.ModelT()
    small.version = 3
    small.buffers = [schema.BufferT()]
    small.operatorCodes = []
    codes: dict[int, int] = {}
    tensors = []
    for index in kept:
        tensor = copy.copy(graph.tensors[index])
        if tflite_file.is_constant(parsed, tensor):
            small.buffers.append(parsed.buffers[tensor.buffer])
            tensor.buffer = len(small.buffers) - 1
        else:
            tensor.buffer = 0
        tensors.append(tensor)
    moved = []
    for operator in operators:
        if operator.opcodeIndex not in codes:
            codes[operator.opcodeIndex] = len(codes)
            small.operatorCodes.append(parsed.operatorCodes[operator.opcodeIndex])
        copied = copy.copy(operator)
        copied.opcodeIndex = codes[operator.opcodeIndex]
        copied.inputs = np.array([new_index.get(int(i), -1) for i in operator.inputs], np.int32)
        copied.outputs = np.array([new_index[int(i)] for i in operator.outputs], np.int32)
        moved.append(copied)
    main = schema.SubGraphT()
    main.tensors, main.operators = tensors, moved
    main.inputs = np.array([new_index[i] for i in inputs], np.int32)
    main.outputs = np.array([new_index[i] for i in outputs], np.int32)
    small.subgraphs = [main]
    return Model(data=_packed(small), subject=source.subject)
