"""Parse a .tflite, and read the names, types, constants and scales of its graph.

The functions take the schema's own objects, which have no types: `parsed` is a ModelT, `graph` a SubGraphT.
`graph.model.Model` holds a file together with its parsed graph.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.errors import ConverterError
from edgeq_converters.values import SliceScales, TensorInfo

EDGETPU_OP = "edgetpu-custom-op"
_NO_TENSORS = np.zeros(0, np.int32)
_DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "BOOL": "bool"}
_SHARED = (int, float, bool, str, bytes, type(None), np.ndarray)
"""Types of fields that a copy shares: nothing changes them in place."""
_DAMAGED = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    UnicodeDecodeError,
)


def parse(data: bytes, *, subject: str) -> Any:
    """Return the schema's ModelT of a .tflite.

    Raises:
        ConverterError: EQ302 the identifier is missing, EQ303 the content does not hold together.
    """
    if data[4:8] != b"TFL3":
        raise ConverterError("EQ302", subject, "not a .tflite: its identifier `TFL3` is missing")
    try:
        parsed = schema.ModelT.InitFromPackedBuf(data, 0)
        if not parsed.subgraphs or not parsed.operatorCodes or not parsed.buffers:
            raise ValueError("no graph inside")
        for graph in parsed.subgraphs:
            graph.operators = [] if graph.operators is None else graph.operators
            for operator in graph.operators:
                # A file may leave an empty list out: an operation on variables has no outputs, or no inputs.
                operator.inputs = _NO_TENSORS if operator.inputs is None else operator.inputs
                operator.outputs = _NO_TENSORS if operator.outputs is None else operator.outputs
                _ = [graph.tensors[i] for i in tensor_indices(operator)]
                _ = parsed.operatorCodes[operator.opcodeIndex]
            _ = [parsed.buffers[tensor.buffer] for tensor in graph.tensors]
        _load_external_constants(parsed, data)
    except _DAMAGED as error:
        raise damaged(subject, str(error)) from error
    return parsed


def copied(parsed: Any) -> Any:
    """Return a copy of a ModelT, or of a part of one, that shares its arrays: `parse` made them read-only.

    This takes a tenth of the time of parsing the file again.
    """
    if isinstance(parsed, list):
        return [copied(each) for each in parsed]
    fields = getattr(parsed, "__dict__", None)
    if fields is None:
        return parsed
    copy = object.__new__(type(parsed))
    copy.__dict__.update(
        {name: value if type(value) in _SHARED else copied(value) for name, value in fields.items()}
    )
    return copy


def _load_external_constants(parsed: Any, data: bytes) -> None:
    # Writers put large constants behind the flatbuffer and store their offset. Packing would lose them there.
    for buffer in parsed.buffers:
        if buffer.data is None and buffer.offset > 1:
            if buffer.offset + buffer.size > len(data):
                raise ValueError(f"a constant ends at {buffer.offset + buffer.size} of {len(data)} bytes")
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0


def damaged(subject: str, why: str) -> ConverterError:
    """Return the error for a file that has the identifier but does not hold a complete model."""
    short = " ".join(why.split())[:160] or "it cannot be read"
    return ConverterError(
        "EQ303", subject, f"truncated or damaged .tflite ({short})", hint="copy or convert the model again"
    )


def compiled(subject: str) -> ConverterError:
    """Return the error for a model that `edgetpu_compiler` made."""
    return ConverterError(
        "EQ320",
        subject,
        "the model is compiled for the Edge TPU: only an Edge TPU can run it, and it cannot be converted",
        expected="the .tflite that it was compiled from",
        got=f"the operation {EDGETPU_OP}",
        hint=f"use the .tflite that edgetpu_compiler read; to ship the compiled one: "
        f"`edgeq bundle {subject} -o FILE --golden-from THAT.tflite`",
    )


@cache
def _enum_names(enum: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enum).items() if isinstance(number, int)}


def op_name(parsed: Any, operator: Any) -> str:
    """Return the name of an operation's kind (`CONV_2D`); of a custom operation with its own name."""
    code = parsed.operatorCodes[operator.opcodeIndex]
    # Files from before schema 3a have the number in the old one-byte field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _enum_names(schema.BuiltinOperator).get(number, f"OP_{number}")
    if name == "CUSTOM" and code.customCode:
        return f"CUSTOM {code.customCode.decode(errors='replace')}"
    return name


def operation_name(graph: Any, operator: Any) -> str:
    """Return the name of an operation's first output tensor, by which recipes refer to the operation.

    It is empty for an operation without outputs, such as ASSIGN_VARIABLE; recipes cannot name one.
    """
    first = first_output(operator)
    return "" if first is None else tensor_name(graph.tensors[first])


def first_output(operator: Any) -> int | None:
    """Return the index of an operation's first output tensor; None if it has none."""
    return next((i for i in index_list(operator.outputs) if i >= 0), None)


def type_name(tensor: Any) -> str:
    """Return a tensor's type as the schema spells it: `FLOAT32`, `INT8`."""
    return _enum_names(schema.TensorType)[tensor.type]


def tensor_name(tensor: Any) -> str:
    """Return a tensor's name; empty where it has none."""
    return tensor.name.decode(errors="replace") if tensor.name else ""


def tensor_indices(operator: Any) -> list[int]:
    """Return the tensor indices of an operation's inputs and outputs, without omitted optional inputs."""
    return [i for i in (*index_list(operator.inputs), *index_list(operator.outputs)) if i >= 0]


def index_list(vector: Any) -> list[int]:
    """Return a vector of the schema as a list; empty where it is missing."""
    return [] if vector is None else [int(item) for item in vector]


def is_constant(parsed: Any, tensor: Any) -> bool:
    """Return whether the file holds the tensor's values."""
    data = parsed.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def activations(parsed: Any) -> list[tuple[int, Any]]:
    """Return (index, tensor) of the main graph's float inputs and of the float tensors that it computes."""
    graph = parsed.subgraphs[0]
    indices = index_list(graph.inputs)
    for operator in graph.operators:
        indices.extend(index_list(operator.outputs))
    return [
        (i, graph.tensors[i])
        for i in dict.fromkeys(indices)
        if i >= 0 and type_name(graph.tensors[i]) == "FLOAT32" and not is_constant(parsed, graph.tensors[i])
    ]


def quantization(tensor: Any) -> tuple[float, int] | None:
    """Return (scale, zero point) of a tensor that is quantized per tensor; None for any other."""
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
        return None
    zero = (
        0 if parameters.zeroPoint is None or not len(parameters.zeroPoint) else int(parameters.zeroPoint[0])
    )
    return float(parameters.scale[0]), zero


def is_quantized(tensor: Any) -> bool:
    """Return whether the tensor has a scale, so that its integers stand for real values."""
    parameters = tensor.quantization
    return parameters is not None and parameters.scale is not None and len(parameters.scale) > 0


def _slice_scales(tensor: Any) -> SliceScales | None:
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or len(parameters.scale) < 2:
        return None
    scales = tuple(float(each) for each in parameters.scale)
    zero_points = index_list(parameters.zeroPoint) or [0]
    return SliceScales(
        axis=int(parameters.quantizedDimension),
        scales=scales,
        zero_points=tuple(zero_points * len(scales) if len(zero_points) == 1 else zero_points),
    )


def inputs_and_outputs(parsed: Any) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the main graph's inputs and outputs in the interpreter's order."""
    graph = parsed.subgraphs[0]
    signature = next((s for s in parsed.signatureDefs or [] if s.subgraphIndex == 0), None)
    return (
        _infos(graph, graph.inputs, signature.inputs if signature else None),
        _infos(graph, graph.outputs, signature.outputs if signature else None),
    )


def _infos(graph: Any, indices: Any, named: Any) -> tuple[TensorInfo, ...]:
    names: dict[int, list[str]] = {}
    for entry in named or []:
        names.setdefault(int(entry.tensorIndex), []).append(entry.name.decode(errors="replace"))
    infos = []
    for index in index_list(indices):
        # One tensor may be several outputs, each with a name of its own.
        name = names[index].pop(0) if names.get(index) else None
        infos.append(_info(graph.tensors[index], name))
    return tuple(infos)


def _info(tensor: Any, name: str | None) -> TensorInfo:
    kind = type_name(tensor)
    pair = quantization(tensor)
    return TensorInfo(
        name=name or tensor_name(tensor),
        shape=tuple(index_list(tensor.shape)),
        dtype=_DTYPES.get(kind, kind.lower()),
        scale=pair[0] if pair else None,
        zero_point=pair[1] if pair else None,
        slices=_slice_scales(tensor),
    )
