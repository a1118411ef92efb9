"""Read the fields of protobuf messages without the package and the schema that wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The types of fields on the wire."""


class Truncated(Exception):
    """A field goes on after the end of its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of a message: its number, wire type, and where its content is in the file."""

    number: int
    wire: int
    start: int
    end: int


def fields(stream: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of a message that fills a part of the file.

    Raises:
        Truncated: a field does not end within it, or it is not a protobuf.
    """
    place = start
    while place < end:
        stream.seek(place)
        tag = varint(stream, end)
        number, wire = tag >> 3, tag & 7
        if wire == BYTES:
            length = varint(stream, end)
            begin = stream.tell()
        elif wire == VARINT:
            begin = stream.tell()
            varint(stream, end)
            length = stream.tell() - begin
        elif wire in (FIXED64, FIXED32):
            begin, length = stream.tell(), 8 if wire == FIXED64 else 4
        else:
            raise Truncated
        if number < 1 or begin + length > end:
            raise Truncated
        yield Field(number=number, wire=wire, start=begin, end=begin + length)
        place = begin + length


def varint(stream: BinaryIO, end: int) -> int:
    """Return the number at the place of the stream, which is then behind it.

    Raises:
        Truncated: it does not end before `end`.
    """
    value = shift = 0
    while True:
        byte = stream.read(1)
        if not byte or stream.tell() > end or shift > 63:
            raise Truncated
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7


def parts(stream: BinaryIO, message: Field, number: int) -> list[Field]:
    """Return the messages or texts of a number in a message, in their order.

    Raises:
        Truncated: the message is damaged.
    """
    return [
        field
        for field in fields(stream, message.start, message.end)
        if field.number == number and field.wire == BYTES
    ]


def whole_number(stream: BinaryIO, message: Field, number: int) -> int | None:
    """Return the last integer of a number in a message, signed; None without one.

    Raises:
        Truncated: the message is damaged.
    """
    value: int | None = None
    for field in list(fields(stream, message.start, message.end)):
        if field.number == number and field.wire == VARINT:
            stream.seek(field.start)
            value = varint(stream, field.end)
    return value if value is None or value < 1 << 63 else value - (1 << 64)


def text(stream: BinaryIO, message: Field, number: int) -> str:
    """Return the text of a number in a message; empty without one.

    Raises:
        Truncated: the message is damaged.
    """
    for field in parts(stream, message, number):
        stream.seek(field.start)
        return stream.read(field.end - field.start).decode(errors="replace")
    return ""
