"""The .tflite file as a graph: parsed, named, and asked what is constant and what is quantized."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

EDGETPU_OP = "edgetpu-custom-op"
_DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "BOOL": "bool"}
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
        ConverterError: EQ302 without the identifier, EQ303 where the content does not hold together.
    """
    if data[4:8] != b"TFL3":
        raise ConverterError("EQ302", subject, "not a .tflite: its identifier `TFL3` is missing")
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        if not model.subgraphs or not model.operatorCodes or not model.buffers:
            raise ValueError("no graph inside")
        for graph in model.subgraphs:
            for operator in graph.operators:
                _ = [graph.tensors[i] for i in tensor_indices(operator)]
                _ = model.operatorCodes[operator.opcodeIndex]
            _ = [model.buffers[tensor.buffer] for tensor in graph.tensors]
        _fetch(model, data)
    except _DAMAGED as error:
        raise damaged(subject, str(error)) from error
    return model


def _fetch(model: Any, data: bytes) -> None:
    # Writers put large constants behind the flatbuffer, by offset; inside of it they survive packing anew.
    for buffer in model.buffers:
        if buffer.data is None and buffer.offset > 1:
            if buffer.offset + buffer.size > len(data):
                raise ValueError(f"a constant ends at {buffer.offset + buffer.size} of {len(data)} bytes")
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0


def damaged(subject: str, why: str) -> ConverterError:
    """Return the error for a file that has the identifier but no whole model."""
    short = " ".join(why.split())[:160] or "it cannot be read"
    return ConverterError(
        "EQ303", subject, f"truncated or damaged .tflite ({short})", hint="copy or convert the model again"
    )


def compiled(subject: str) -> ConverterError:
    """Return the error for a model that `edgetpu_compiler` made."""
    return ConverterError(
        "EQ320",
        subject,
        "the model is compiled for the Edge TPU: only an Edge TPU runs it, and nothing can convert it",
        expected="the .tflite that it was compiled from",
        got=f"the operation {EDGETPU_OP}",
        hint=f"give what edgetpu_compiler was given; edgeq edgetpu {subject} says what is inside",
    )


@cache
def _enum_names(enum: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enum).items() if isinstance(number, int)}


def op_name(model: Any, operator: Any) -> str:
    """Return the operation's name; a custom operation's own name."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Files of before schema 3a keep the number in the old one-byte field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _enum_names(schema.BuiltinOperator).get(number, f"OP_{number}")
    if name == "CUSTOM" and code.customCode:
        return f"CUSTOM {code.customCode.decode(errors='replace')}"
    return name


def type_name(tensor: Any) -> str:
    """Return a tensor's type as the schema calls it: `FLOAT32`, `INT8`."""
    return _enum_names(schema.TensorType)[tensor.type]


def tensor_name(tensor: Any) -> str:
    """Return a tensor's name."""
    return tensor.name.decode(errors="replace") if tensor.name else ""


def tensor_indices(operator: Any) -> list[int]:
    """Return an operation's inputs and outputs without the optional ones that are left out."""
    found = [*_list(operator.inputs), *_list(operator.outputs)]
    return [int(i) for i in found if i >= 0]


def _list(vector: Any) -> list[int]:
    return [] if vector is None else [int(item) for item in vector]


def is_constant(model: Any, tensor: Any) -> bool:
    """Return whether the tensor's values are in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def activations(model: Any) -> list[tuple[int, Any]]:
    """Return (index, tensor) of the main graph's float tensors that are computed or fed, never constants."""
    graph = model.subgraphs[0]
    indices = _list(graph.inputs)
    for operator in graph.operators:
        indices.extend(_list(operator.outputs))
    return [
        (i, graph.tensors[i])
        for i in dict.fromkeys(indices)
        if i >= 0 and type_name(graph.tensors[i]) == "FLOAT32" and not is_constant(model, graph.tensors[i])
    ]


def quantization(tensor: Any) -> tuple[float, int] | None:
    """Return a tensor's scale and zero point where it has exactly one of each."""
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
        return None
    zero = (
        0 if parameters.zeroPoint is None or not len(parameters.zeroPoint) else int(parameters.zeroPoint[0])
    )
    return float(parameters.scale[0]), zero


def is_quantized(tensor: Any) -> bool:
    """Return whether the tensor holds integers that stand for real values."""
    parameters = tensor.quantization
    return parameters is not None and parameters.scale is not None and len(parameters.scale) > 0


def require_float(model: Any, *, subject: str) -> None:
    """Check that nothing in the model is quantized yet.

    Raises:
        ConverterError: EQ304 naming the first tensor that is.
    """
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            kind = type_name(tensor)
            if kind == "FLOAT16" or (kind != "FLOAT32" and is_quantized(tensor)):
                raise ConverterError(
                    "EQ304",
                    subject,
                    "the model is quantized already",
                    expected="a float32 model",
                    got=f"{kind.lower()} in tensor {tensor_name(tensor)!r}",
                    hint="convert from the float model that it was made of",
                )


def inputs_and_outputs(model: Any) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the main graph's inputs and outputs in the interpreter's order."""
    graph = model.subgraphs[0]
    signature = next((s for s in model.signatureDefs or [] if s.subgraphIndex == 0), None)
    given = {m.tensorIndex: m.name.decode() for m in (signature.inputs or [])} if signature else {}
    taken = {m.tensorIndex: m.name.decode() for m in (signature.outputs or [])} if signature else {}
    return (
        tuple(_info(graph.tensors[i], given.get(i)) for i in _list(graph.inputs)),
        tuple(_info(graph.tensors[i], taken.get(i)) for i in _list(graph.outputs)),
    )


def _info(tensor: Any, name: str | None) -> TensorInfo:
    kind = type_name(tensor)
    pair = quantization(tensor)
    return TensorInfo(
        name=name or tensor_name(tensor),
        shape=tuple(_list(tensor.shape)),
        dtype=_DTYPES.get(kind, kind.lower()),
        scale=pair[0] if pair else None,
        zero_point=pair[1] if pair else None,
    )


def normalized(data: bytes, *, subject: str) -> bytes:
    """Return the same model as quantizers take it: every tensor's name unique, which ranges by name need.

    A model without signatures gets an empty list of them, which litert-quantizer takes for granted. A file of
    before schema 3a keeps its operations' numbers in the old field alone, which litert-quantizer does not
    read: it would take each operation for an ADD. Both fields are filled here.
    """
    model = parse(data, subject=subject)
    seen: set[bytes] = set()
    changed = False
    for code in model.operatorCodes:
        if code.builtinCode < code.deprecatedBuiltinCode:
            code.builtinCode, changed = code.deprecatedBuiltinCode, True
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            if not tensor.name or tensor.name in seen:
                tensor.name = b"%s#%d.%d" % (tensor.name or b"tensor", number, index)
                changed = True
            seen.add(tensor.name)
    if model.signatureDefs is None:
        model.signatureDefs, changed = [], True
    return _packed(model, len(data)) if changed else data


def ordered(data: bytes, *, inputs: Sequence[str], outputs: Sequence[str], subject: str) -> bytes:
    """Return the same model with its inputs and outputs in this order of names.

    TensorFlow sorts them by name, where users mean the source's order: the first output is the one judged.
    """
    model = parse(data, subject=subject)
    graph = model.subgraphs[0]
    changed = False
    for what, infos, names in zip(
        ("inputs", "outputs"), inputs_and_outputs(model), (inputs, outputs), strict=True
    ):
        known = [info.name for info in infos]
        if known != list(names) and sorted(known) == sorted(names) and len(set(known)) == len(known):
            indices = _list(getattr(graph, what))
            setattr(graph, what, [indices[known.index(name)] for name in names])
            changed = True
    return _packed(model, len(data)) if changed else data


def _packed(model: Any, size: int) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(size + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])  # Output() would copy once more
