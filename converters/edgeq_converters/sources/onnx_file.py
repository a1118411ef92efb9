"""Read the frame of an ONNX file without its package: is it one, is it whole, and where are its weights?

Only the tags and lengths of the protobuf messages are read, not the weights between them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources.protobuf import BYTES, VARINT, Field, Truncated, fields

# Field numbers of onnx.proto3, which never change.
_MODEL = {
    1: VARINT,
    2: BYTES,
    3: BYTES,
    4: BYTES,
    5: VARINT,
    6: BYTES,
    7: BYTES,
    8: BYTES,
    14: BYTES,
}
_TEXTS = (2, 3, 4)
GRAPH, _NODE, INITIALIZER, _ATTRIBUTES = 7, 1, 5, 5
_EXTERNAL_DATA, _TENSOR_OF_ATTRIBUTE = 13, 5
_LONGEST_TEXT = 1 << 16
EXPORT = "torch.onnx.export(model, (sample,), 'model.onnx') writes one"


def require_onnx(source: Path) -> None:
    """Check that a file can be an ONNX model: a protobuf with the fields of one, as far as it goes.

    Raises:
        ConverterError: EQ302 it is something else.
    """
    with source.open("rb") as stream:
        problem = _foreign(stream, os.fstat(stream.fileno()).st_size)
    if problem is not None:
        raise ConverterError(
            "EQ302",
            str(source),
            "not an ONNX model",
            expected="a protobuf with the fields of ONNX",
            got=problem,
            hint=EXPORT,
        )


def require_whole(source: Path) -> None:
    """Check that an ONNX file is whole, and that the files with its weights are there.

    Raises:
        ConverterError: EQ305 naming the file that is truncated or missing.
    """
    with source.open("rb") as stream:
        try:
            external = dict(_external(stream, os.fstat(stream.fileno()).st_size))
        except Truncated as error:
            raise ConverterError(
                "EQ305", str(source), "truncated or damaged .onnx file", hint="export the model again"
            ) from error
    for name, size in sorted(external.items()):
        _require_external(source, name, size)


def _require_external(source: Path, name: str, size: int) -> None:
    place = PurePosixPath(name)
    file = source.parent / name
    if place.is_absolute() or ".." in place.parts:
        problem = f"its weights are in another folder ({name}), which ONNX does not permit"
    elif not file.is_file():
        problem = f"its weights are in another file, which is missing: {name}"
    elif file.stat().st_size < size:
        problem = f"the file with its weights is truncated: {name}"
    else:
        return
    raise ConverterError(
        "EQ305",
        str(source),
        problem,
        expected=f"{size} bytes in {file}",
        got=f"{file.stat().st_size} bytes" if file.is_file() else "no such file",
        hint="copy it beside the .onnx, or export the model in one file (external_data=False)",
    )


def _foreign(stream: BinaryIO, size: int) -> str | None:
    """Return in words what a file is instead of an ONNX model; None where it can be one."""
    seen: set[int] = set()
    try:
        for field in fields(stream, 0, size):
            if _MODEL.get(field.number, field.wire) != field.wire:
                return "a protobuf of another message"
            if field.number in _TEXTS and not _is_text(stream, field):
                return "a protobuf of another message"
            seen.add(field.number)
    except Truncated:
        # What comes before the end decides; without any field of ONNX it is not a protobuf at all.
        return None if seen & set(_MODEL) else "a file that is not a protobuf"
    if not seen & set(_MODEL):
        return "a protobuf of another message"
    return None


def _is_text(stream: BinaryIO, field: Field) -> bool:
    if field.end - field.start > _LONGEST_TEXT:
        return False
    stream.seek(field.start)
    try:
        return stream.read(field.end - field.start).decode().isprintable()
    except UnicodeDecodeError:
        return False


def _external(stream: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """Yield (file, bytes that it must have) of every tensor whose values are in another file."""
    least: dict[str, int] = {}
    for field in fields(stream, 0, size):
        if field.number != GRAPH or field.wire != BYTES:
            continue
        for part in list(fields(stream, field.start, field.end)):
            for tensor in _tensors(stream, part):
                name, end = _location(stream, tensor)
                if name:
                    least[name] = max(least.get(name, 0), end)
    yield from least.items()


def _tensors(stream: BinaryIO, part: Field) -> Iterator[Field]:
    """Yield the tensors of a part of a graph: an initializer, or the constants of a node."""
    if part.wire != BYTES:
        return
    if part.number == INITIALIZER:
        yield part
    elif part.number == _NODE:
        for attribute in list(fields(stream, part.start, part.end)):
            if attribute.number == _ATTRIBUTES and attribute.wire == BYTES:
                for value in list(fields(stream, attribute.start, attribute.end)):
                    if value.number == _TENSOR_OF_ATTRIBUTE and value.wire == BYTES:
                        yield value


def _location(stream: BinaryIO, tensor: Field) -> tuple[str, int]:
    """Return (file, end of the values in it) of a tensor; ("", 0) where it holds its values itself."""
    entries: dict[str, str] = {}
    for field in list(fields(stream, tensor.start, tensor.end)):
        if field.number == _EXTERNAL_DATA and field.wire == BYTES:
            pair = {}
            for text in list(fields(stream, field.start, field.end)):
                if text.wire == BYTES and text.end - text.start <= _LONGEST_TEXT:
                    stream.seek(text.start)
                    pair[text.number] = stream.read(text.end - text.start).decode(errors="replace")
            entries[pair.get(1, "")] = pair.get(2, "")
    numbers = [int(entries[key]) for key in ("offset", "length") if entries.get(key, "").isdecimal()]
    return entries.get("location", ""), sum(numbers)
