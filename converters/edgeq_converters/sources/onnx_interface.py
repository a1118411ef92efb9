"""Read the inputs and outputs that an ONNX model declares, without its package and without its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources.onnx_file import GRAPH, INITIALIZER
from edgeq_converters.sources.protobuf import BYTES, Field, Truncated, parts, text, whole_number
from edgeq_converters.values import Interface, TensorInfo

_OPEN = -1
# Field numbers of onnx.proto3, which never change.
_GRAPH_INPUT, _GRAPH_OUTPUT = 11, 12
_TENSOR_NAME = 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TENSOR_TYPE, _ELEMENT, _SHAPE = 1, 1, 2
_DIMENSION, _SIZE = 1, 1
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}


def declared(source: Path) -> Interface | None:
    """Return the inputs and outputs of an ONNX model; None where one of them is not a tensor of a known type.

    Shapes are in the model's own layout, often with channels first; -1 is an open dimension.

    Raises:
        ConverterError: EQ305 the file is truncated.
    """
    with source.open("rb") as stream:
        try:
            return _interface(stream, os.fstat(stream.fileno()).st_size)
        except Truncated as error:
            raise ConverterError(
                "EQ305", str(source), "truncated or damaged .onnx file", hint="export the model again"
            ) from error


def _interface(stream: BinaryIO, size: int) -> Interface | None:
    inputs: list[TensorInfo | None] = []
    outputs: list[TensorInfo | None] = []
    weights: set[str] = set()
    for graph in parts(stream, Field(number=0, wire=BYTES, start=0, end=size), GRAPH):
        weights |= {text(stream, tensor, _TENSOR_NAME) for tensor in parts(stream, graph, INITIALIZER)}
        inputs += [_tensor(stream, each) for each in parts(stream, graph, _GRAPH_INPUT)]
        outputs += [_tensor(stream, each) for each in parts(stream, graph, _GRAPH_OUTPUT)]
    # Older files list their weights among the inputs.
    fed = [each for each in inputs if each is None or each.name not in weights]
    known = Interface(
        inputs=tuple(each for each in fed if each is not None),
        outputs=tuple(each for each in outputs if each is not None),
    )
    complete = None not in fed and None not in outputs and known.inputs and known.outputs
    return known if complete else None


def _tensor(stream: BinaryIO, value: Field) -> TensorInfo | None:
    for kind in parts(stream, value, _VALUE_TYPE):
        for tensor in parts(stream, kind, _TENSOR_TYPE):
            dtype = _DTYPES.get(whole_number(stream, tensor, _ELEMENT) or 0)
            shape = next(iter(parts(stream, tensor, _SHAPE)), None)
            if dtype is None or shape is None:
                return None
            sizes = [whole_number(stream, dimension, _SIZE) for dimension in parts(stream, shape, _DIMENSION)]
            return TensorInfo(
                name=text(stream, value, _VALUE_NAME),
                shape=tuple(size if size and size > 0 else _OPEN for size in sizes),
                dtype=dtype,
            )
    return None
