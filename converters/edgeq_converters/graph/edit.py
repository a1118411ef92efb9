"""Edits of a parsed .tflite: read and write constants, cut operations out, and pack the result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import batching, tflite_file
from edgeq_converters.graph.model import HasGraph, Model

Array = npt.NDArray[Any]

STORED: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "INT8": np.dtype("<i1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "BOOL": np.dtype("?"),
}
"""How a constant of each type is stored; constants of other types are not read."""


class Editor:
    """A graph that may be changed: a copy of a model's, which `pack` turns into a new model."""

    def __init__(self, model: Model) -> None:
        self.parsed: Any = tflite_file.copied(model.parsed)
        self.subject = model.subject

    def pack(self) -> Model:
        """Return the graph as it now stands."""
        return Model(data=packed(self.parsed), subject=self.subject)


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # the library has no types
    """A builder that stores equal vectors of zero points once: they have eight bytes for each channel."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._offsets: dict[bytes, int] = {}

    def CreateNumpyVector(self, values: Array) -> int:
        if values.dtype != np.int64:
            return int(super().CreateNumpyVector(values))
        stored = values.tobytes()
        if stored not in self._offsets:
            self._offsets[stored] = int(super().CreateNumpyVector(values))
        return self._offsets[stored]


def packed(parsed: Any) -> bytes:
    """Return the file of a parsed model."""
    size = sum(len(buffer.data) for buffer in parsed.buffers if buffer.data is not None)
    # Reserve the whole size: a builder that grows doubles and copies. Output() would copy once more.
    builder = _Builder(size + size // 50 + (1 << 16))
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def constant(parsed: Any, tensor: Any) -> Array:
    """Return a copy of a constant's values in its own type and shape; int4 as int8.

    Raises:
        KeyError: for a type other than int4 of which STORED has no entry.
    """
    stored = np.asarray(parsed.buffers[tensor.buffer].data, np.uint8)
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    kind = tflite_file.type_name(tensor)
    if kind == "INT4":
        return _unpacked(stored, int(np.prod(shape))).reshape(shape)
    return np.frombuffer(stored.tobytes(), STORED[kind]).reshape(shape).copy()


def set_constant(parsed: Any, tensor: Any, values: Array) -> None:
    """Write a constant's values; the tensor keeps its type and shape.

    Raises:
        ValueError: for another shape.
    """
    if tuple(values.shape) != tuple(int(size) for size in tensor.shape):
        raise ValueError(f"expected the shape {tuple(tensor.shape)}, got {values.shape}")
    kind = tflite_file.type_name(tensor)
    if kind == "INT4":
        parsed.buffers[tensor.buffer].data = _packed_nibbles(values.astype(np.int8).ravel())
        return
    stored = values.astype(STORED[kind]).tobytes()
    parsed.buffers[tensor.buffer].data = np.frombuffer(stored, np.uint8)


def _unpacked(stored: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """Return the first `count` int4 values; the lower half of a byte is the first of its two."""
    pairs = np.stack([stored << 4, stored & 0xF0], axis=1).ravel()[:count]
    return pairs.view(np.int8) >> 4


def _packed_nibbles(values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    pairs = np.append(values, np.zeros(len(values) % 2, np.int8)).view(np.uint8).reshape(-1, 2)
    return np.asarray(pairs[:, 0] & 0x0F | pairs[:, 1] << 4, np.uint8)


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


def drop_unused_codes(parsed: Any) -> None:
    """Remove the operator codes that no operation uses: a runtime refuses a model for a code it lacks."""
    used = sorted({int(each.opcodeIndex) for graph in parsed.subgraphs for each in graph.operators})
    new_index = {index: number for number, index in enumerate(used)}
    parsed.operatorCodes = [parsed.operatorCodes[index] for index in used]
    for graph in parsed.subgraphs:
        for operator in graph.operators:
            operator.opcodeIndex = new_index[int(operator.opcodeIndex)]


def extract_operation(
    source: HasGraph, operator: Any, *, batch: int = 1
) -> tuple[Model, tuple[int, ...], tuple[int, ...]]:
    """Return (a model of one operation and its constants, its inputs, its outputs).

    The inputs and outputs are tensor indices of `source`, in the order of the small model's own.

    Args:
        batch: as in `extract`.
    """
    inputs, outputs = ends_of(source, operator)
    return extract(source, [operator], inputs, outputs, batch=batch), inputs, outputs


def ends_of(source: HasGraph, operator: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tensors that an operation reads, constants left out and each once, and its outputs."""
    tensors = source.parsed.subgraphs[0].tensors
    outputs = tuple(int(i) for i in operator.outputs)
    inputs = tuple(
        i
        for i in dict.fromkeys(int(i) for i in operator.inputs)
        if i >= 0 and not tflite_file.is_constant(source.parsed, tensors[i])
    )
    return inputs, outputs


def extract(
    source: HasGraph,
    operators: Sequence[Any],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    graph: Any = None,
    batch: int = 1,
) -> Model:
    """Return a model of some operations and the constants that they read.

    Args:
        operators: of one graph, in order of execution.
        inputs: indices of the tensors that the operations read and none of them computes.
        outputs: indices of the tensors that the new model returns.
        graph: of the operations; None for the main one.
        batch: samples in a run; more than one only where `batching.is_possible`.
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
    if batch > 1:
        batching.widen(small, batch)
    return Model(data=packed(small), subject=source.subject)
