"""One call of a verb: its request, its payload, the device's home and the response."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, Callable, NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields, bad
from edgeq_agent.calls.stdin import IdleTimeout, Stdin
from edgeq_agent.errors import BAD_REQUEST, AgentError
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json, has_long_number

# Called when a step was reached: `Response.progress`.
Progress = Callable[..., None]

MAX_REQUEST_BYTES = 8 * 1024 * 1024
_MAX_EMPTY_LINES = 1000


class Response:
    """Writes the messages of a response: JSON lines, each flushed.

    A host that disconnects does not stop what the device is doing: an activation must still reach a stable
    state, which the next call reads from the device. After a broken pipe all further messages are dropped.
    """

    def __init__(self, stream: BinaryIO, mark: bytes = b"") -> None:
        """Write to a stream.

        Args:
            mark: precedes each message, so that the host recognises it among other output.
        """
        self._stream = stream
        self._mark = mark
        self.connected = True

    def send(self, message: Json) -> None:
        """Write one message, or drop it when the host has disconnected."""
        if not self.connected:
            return
        try:
            self._stream.write(self._mark + wire.dump(message))
            self._stream.flush()
        except BrokenPipeError:
            self.connected = False
            # Python flushes standard output again at exit; point it at /dev/null so that this cannot fail.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def progress(self, step: str, **details: Any) -> None:
        """Report that a step was reached."""
        self.send(wire.progress(step, **details))


class Call(NamedTuple):
    """One call of a verb.

    Attributes:
        fields: the request.
        payload: the bytes that follow the request, for the verbs that take a payload.
    """

    fields: Fields
    payload: Stdin
    home: Home
    response: Response


def read_request(stdin: Stdin) -> Fields:
    """Read the request line of a call.

    Raises:
        AgentError: EQ512, the line is missing, cut short, too long, or not a JSON object.
    """
    try:
        line = _first_line(stdin)
    except IdleTimeout as error:
        raise AgentError(BAD_REQUEST, "request", str(error)) from error
    if len(line) > MAX_REQUEST_BYTES:
        raise AgentError(BAD_REQUEST, "request", f"longer than {MAX_REQUEST_BYTES} bytes")
    if not line.endswith(b"\n"):
        raise AgentError(BAD_REQUEST, "request", expected="one line of JSON", got="a line without a newline")
    if has_long_number(line):
        raise AgentError(BAD_REQUEST, "request", "not JSON: a number of more than 4300 digits")
    try:
        value = json.loads(
            line.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
        )
    except (ValueError, RecursionError) as error:
        raise AgentError(BAD_REQUEST, "request", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise bad("request", "a JSON object", value)
    return Fields(value)


def _first_line(stdin: Stdin) -> bytes:
    # The host sends empty lines to a login shell whose start files wait for one; what they leave is skipped.
    for _ in range(_MAX_EMPTY_LINES):
        line = stdin.readline(MAX_REQUEST_BYTES + 1)
        if line != b"\n":
            break
    return line


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> Json:
    # Parsers differ in which of two equal keys wins: the signed document might not be the one that is used.
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("an object has a key twice")
    return unique
