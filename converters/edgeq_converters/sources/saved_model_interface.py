"""Read the inputs and outputs that the signature of a SavedModel declares, without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources.protobuf import BYTES, Field, Truncated, parts, text, whole_number
from edgeq_converters.values import Interface, TensorInfo

_OPEN = -1
_USUAL, _OF_INITIALIZATION = "serving_default", "__saved_model_init_op"
# Field numbers of saved_model.proto, meta_graph.proto and tensor_shape.proto, which never change.
_META_GRAPH, _SIGNATURES = 2, 5
_KEY, _VALUE = 1, 2
_INPUTS, _OUTPUTS = 1, 2
_DTYPE, _SHAPE = 2, 3
_DIMENSION, _SIZE, _UNKNOWN_RANK = 2, 1, 3
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    17: "uint16",
    19: "float16",
}


def declared(source: Path) -> Interface | None:
    """Return the inputs and outputs of a SavedModel, -1 for each open dimension; None if not certain.

    They are those of `serving_default`, or of the only signature, in the order of their names.

    Raises:
        ConverterError: EQ305 saved_model.pb is truncated.
    """
    path = source / "saved_model.pb"
    with path.open("rb") as stream:
        try:
            return _interface(stream, os.fstat(stream.fileno()).st_size)
        except Truncated as error:
            raise ConverterError(
                "EQ305", str(path), "truncated or damaged SavedModel", hint="save the model again"
            ) from error


def _interface(stream: BinaryIO, size: int) -> Interface | None:
    graphs = parts(stream, Field(number=0, wire=BYTES, start=0, end=size), _META_GRAPH)
    signatures = _entries(stream, graphs[0], _SIGNATURES) if len(graphs) == 1 else {}
    signatures.pop(_OF_INITIALIZATION, None)
    chosen = signatures.get(_USUAL) or (next(iter(signatures.values())) if len(signatures) == 1 else None)
    if chosen is None:
        return None
    inputs, outputs = (_tensors(stream, chosen, number) for number in (_INPUTS, _OUTPUTS))
    return Interface(inputs=inputs, outputs=outputs) if inputs and outputs else None


def _entries(stream: BinaryIO, message: Field, number: int) -> dict[str, Field]:
    """Return {key: message} of a map."""
    entries = {}
    for entry in parts(stream, message, number):
        for value in parts(stream, entry, _VALUE):
            entries[text(stream, entry, _KEY)] = value
    return entries


def _tensors(stream: BinaryIO, signature: Field, number: int) -> tuple[TensorInfo, ...] | None:
    infos = []
    for name, tensor in sorted(_entries(stream, signature, number).items()):
        dtype = _DTYPES.get(whole_number(stream, tensor, _DTYPE) or 0)
        shapes = parts(stream, tensor, _SHAPE)
        if dtype is None or len(shapes) != 1 or whole_number(stream, shapes[0], _UNKNOWN_RANK):
            return None
        sizes = [
            whole_number(stream, dimension, _SIZE) or 0 for dimension in parts(stream, shapes[0], _DIMENSION)
        ]
        infos.append(
            TensorInfo(name=name, shape=tuple(size if size > 0 else _OPEN for size in sizes), dtype=dtype)
        )
    return tuple(infos)
