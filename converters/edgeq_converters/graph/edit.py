"""Surgery on a parsed .tflite: constants read and written, one operation cut out, the whole packed again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file

Array = npt.NDArray[Any]

_STORED: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "INT8": np.dtype("<i1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}


def pack(model: Any) -> bytes:
    """Return the bytes of a schema's ModelT."""
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    # Room for everything at once: a builder that grows doubles and copies, and Output() copies once more.
    builder = flatbuffers.Builder(size + size // 50 + (1 << 16))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def constant(model: Any, tensor: Any) -> Array:
    """Return a copy of a constant's values in its own type and shape.

    Raises:
        KeyError: for a type that is not float32, int8, int32 or int64.
    """
    stored = np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes()
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    return np.frombuffer(stored, _STORED[tflite_file.type_name(tensor)]).reshape(shape).copy()


def set_constant(model: Any, tensor: Any, values: Array) -> None:
    """Write a constant's values, which keep the tensor's type and shape.

    Raises:
        ValueError: for another shape.
    """
    if tuple(values.shape) != tuple(int(size) for size in tensor.shape):
        raise ValueError(f"expected the shape {tuple(tensor.shape)}, got {values.shape}")
    dtype = _STORED[tflite_file.type_name(tensor)]
    model.buffers[tensor.buffer].data = np.frombuffer(values.astype(dtype).tobytes(), np.uint8)


def scales(tensor: Any) -> npt.NDArray[np.float64]:
    """Return a quantized tensor's scales: one, or one a channel."""
    return np.asarray(tensor.quantization.scale, np.float64)


def set_scales(tensor: Any, values: npt.ArrayLike) -> None:
    """Write a quantized tensor's scales; the zero points stay."""
    tensor.quantization.scale = np.asarray(values, np.float32)


def users(model: Any) -> dict[int, int]:
    """Return by how many operations and graph outputs each buffer with data is used, over all subgraphs."""
    count: dict[int, int] = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            for index in {int(i) for i in operator.inputs if i >= 0}:
                tensor = graph.tensors[index]
                if tflite_file.is_constant(model, tensor):
                    count[tensor.buffer] = count.get(tensor.buffer, 0) + 1
        for index in graph.outputs:
            tensor = graph.tensors[int(index)]
            if tflite_file.is_constant(model, tensor):
                count[tensor.buffer] = count.get(tensor.buffer, 0) + 1
    return count


def cut(model: Any, operator: Any) -> tuple[bytes, tuple[int, ...], tuple[int, ...]]:
    """Return one operation as a model of its own: (bytes, its inputs, its outputs).

    The inputs and outputs are the tensor indices of the model that it was cut from, in the order of the small
    model's inputs and outputs; its constants came along.
    """
    graph = model.subgraphs[0]
    outputs = tuple(int(i) for i in operator.outputs)
    inputs = tuple(
        i
        for i in dict.fromkeys(int(i) for i in operator.inputs)
        if i >= 0 and not tflite_file.is_constant(model, graph.tensors[i])
    )
    return part(model, [operator], inputs, outputs), inputs, outputs


def part(model: Any, operators: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """Return some operations as a model of their own, with the constants that they read.

    Args:
        operators: of the main graph, in order of execution.
        inputs: tensor indices of what the operations read and none of them computes.
        outputs: tensor indices of what the model shall give.
    """
    graph = model.subgraphs[0]
    read = [i for operator in operators for i in tflite_file.tensor_indices(operator)]
    kept = list(dict.fromkeys([*inputs, *read, *outputs]))
    place = {index: number for number, index in enumerate(kept)}
    small = schema.ModelT()
    small.version = 3
    small.buffers = [schema.BufferT()]
    small.operatorCodes = []
    codes: dict[int, int] = {}
    tensors = []
    for index in kept:
        tensor = copy.copy(graph.tensors[index])
        if tflite_file.is_constant(model, tensor):
            small.buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = len(small.buffers) - 1
        else:
            tensor.buffer = 0
        tensors.append(tensor)
    alone = []
    for operator in operators:
        if operator.opcodeIndex not in codes:
            codes[operator.opcodeIndex] = len(codes)
            small.operatorCodes.append(model.operatorCodes[operator.opcodeIndex])
        moved = copy.copy(operator)
        moved.opcodeIndex = codes[operator.opcodeIndex]
        moved.inputs = np.array([place.get(int(i), -1) for i in operator.inputs], np.int32)
        moved.outputs = np.array([place[int(i)] for i in operator.outputs], np.int32)
        alone.append(moved)
    whole = schema.SubGraphT()
    whole.tensors, whole.operators = tensors, alone
    whole.inputs = np.array([place[i] for i in inputs], np.int32)
    whole.outputs = np.array([place[i] for i in outputs], np.int32)
    small.subgraphs = [whole]
    return pack(small)
