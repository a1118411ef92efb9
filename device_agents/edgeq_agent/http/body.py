"""The body of a request: its JSON part, the bytes after it, and readers that refuse as the protocol does.

The messages of refusals are read by the authors of clients in other languages: they name a field as the
protocol does, so they are worded here and not by the field reader.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.http.errors import Refused
from edgeq_agent.wire import has_long_number

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = HEADER_LENGTH.lower()


class Message(NamedTuple):
    """The body of a request.

    Attributes:
        fields: its JSON part.
        binary: the bytes after it.
        declared: whether a header gave the length of the JSON part.
    """

    fields: Fields
    binary: bytes
    declared: bool


def split(headers: Mapping[str, str], body: bytes) -> Message:
    """Return the body's JSON part and the bytes after it.

    Args:
        headers: by their names in lower case.

    Raises:
        Refused: 400 it does not follow the protocol, 415 it is compressed.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, f"Content-Encoding {headers['content-encoding']!r}: expected none")
    stated = headers.get(_LENGTH)
    length = len(body)
    if stated is not None:
        if not (stated.isascii() and stated.isdigit()) or len(stated) > 18:
            raise Refused(400, f"{HEADER_LENGTH}: expected a number of bytes, got {stated[:40]!r}")
        length = int(stated)
        if length > len(body):
            raise Refused(400, f"{HEADER_LENGTH}: {length} is beyond the body's {len(body)} bytes")
    if has_long_number(body[:length]):
        raise Refused(400, "the body is not JSON: a number of more than 4300 digits")
    try:
        document = json.loads(body[:length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}"[:300]) from error
    return Message(object_of(document, "the body: expected a JSON object"), body[length:], stated is not None)


def object_of(value: Any, message: str) -> Fields:
    """Return the fields of a JSON object.

    Raises:
        Refused: 400 with this message, it is not an object.
    """
    try:
        return Fields(value)
    except AgentError as error:
        raise Refused(400, message) from error


def parameters(fields: Fields, subject: str) -> Fields:
    """Return an object's parameters; none when they are missing.

    Raises:
        Refused: 400, they are not an object.
    """
    present = fields.raw("parameters") if "parameters" in fields else {}
    return object_of(present, f"{subject}: parameters: expected an object")


def flag(values: Fields, name: str, subject: str, default: bool = False) -> bool:
    """Return a boolean parameter.

    Raises:
        Refused: 400, it is not a boolean.
    """
    try:
        return values.flag(name, default)
    except AgentError as error:
        message = f"{subject}: {name}: expected true or false, got {values.raw(name)!r}"
        raise Refused(400, message[:200]) from error
