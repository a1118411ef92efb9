"""Read the head of an HTTP/1.1 request strictly: what two readers could read differently is refused.

A proxy in front of this server may read such a head as other requests: two Host or Content-Length headers,
a space before a colon, folded lines, lines that end without CR. It is refused, and the connection ends
(RFC 9112 sections 2.2, 3.2, 5.1, 5.2 and 6.3 allow or require this).
"""

from __future__ import annotations

import io
import re
from typing import NamedTuple

from edgeq_agent.http.errors import Refused

HEAD_BYTES = 64 << 10
_TARGET_BYTES = 8 << 10
_HEADERS = 100
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST = re.compile(rb"(" + _TOKEN + rb"{1,32}) (\S+) HTTP/(\d)\.(\d)")
_TARGET = re.compile(rb"/[!-~]*")
_HEADER = re.compile(rb"(" + _TOKEN + rb"{1,256}):[ \t]*(.*?)[ \t]*", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,18}")
# Each decides something, so that a second one would be another reading of the request.
_ONCE = frozenset(
    (
        "authorization", "content-encoding", "content-length", "content-type", "expect", "host",
        "inference-header-content-length", "origin", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site",
        "transfer-encoding",
    )
)  # fmt: skip


class Head(NamedTuple):
    """The request line and the headers.

    Attributes:
        target: path and query, as they arrived.
        headers: by their names in lower case.
        length: of the body, in bytes.
        keep_alive: whether the client wants to use the connection further.
        asks_first: whether it waits for `100 Continue` before it sends the body.
    """

    method: str
    target: str
    headers: dict[str, str]
    length: int
    keep_alive: bool
    asks_first: bool

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


def read_head(stream: io.BufferedReader) -> Head | None:
    """Return the next request's head; None when the client ended the connection before it was complete.

    Raises:
        Refused: it does not follow HTTP/1.1, or is too large; the connection cannot be used further.
    """
    line = _line(stream, _TARGET_BYTES, 414)
    if line == b"":  # some clients end a body with an empty line
        line = _line(stream, _TARGET_BYTES, 414)
    if line is None:
        return None
    method, target, minor = _request_line(line)
    headers: dict[str, str] = {}
    left_bytes = HEAD_BYTES
    while True:
        line = _line(stream, left_bytes, 431)
        if line is None:
            return None
        if not line:
            return _checked(method, target, minor, headers)
        left_bytes -= len(line) + 2
        name, value = _header(line)
        if name in headers and name in _ONCE:
            raise _bad(f"two headers {name}")
        headers[name] = headers[name] + ", " + value if name in headers else value
        if len(headers) > _HEADERS:
            raise Refused(431, f"more than {_HEADERS} headers", close=True)


def _bad(problem: str) -> Refused:
    return Refused(400, f"not a request of HTTP/1.1: {problem}", close=True)


def _line(stream: io.BufferedReader, limit: int, status: int) -> bytes | None:
    """Return the next line without its CRLF; None at the end of the connection."""
    line = stream.readline(limit + 2)
    if not line.endswith(b"\n"):
        if len(line) >= limit + 2:
            raise Refused(status, f"a line or the headers have more than {limit} bytes", close=True)
        return None
    if not line.endswith(b"\r\n"):
        raise _bad("a line ends without CR")
    line = line[:-2]
    if _CONTROL.search(line):
        raise _bad("a control character")
    return line


def _request_line(line: bytes) -> tuple[str, str, int]:
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise _bad("the request line")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise Refused(505, "HTTP version: expected 1.1 or 1.0", close=True)
    if not _TARGET.fullmatch(target):
        raise _bad("the target: expected a path")
    return method.decode("ascii"), target.decode("ascii"), int(minor)


def _header(line: bytes) -> tuple[str, str]:
    if line[:1] in b" \t":
        raise _bad("a folded header")
    match = _HEADER.fullmatch(line)
    if match is None:
        raise _bad("a header line: expected `Name: value`")
    return match.group(1).decode("ascii").lower(), match.group(2).decode("latin-1")


def _checked(method: str, target: str, minor: int, headers: dict[str, str]) -> Head:
    if minor and "host" not in headers:
        raise _bad("no header Host")
    if "transfer-encoding" in headers:
        raise Refused(501, "Transfer-Encoding: send a Content-Length instead", close=True)
    length = headers.get("content-length")
    if length is None and method == "POST":
        raise Refused(411, "Content-Length is missing", close=True)
    if length is not None and not _LENGTH.fullmatch(length):
        raise Refused(400, "Content-Length: expected one number of bytes", close=True)
    expect = headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise Refused(417, "Expect: expected 100-continue", close=True)
    options = [option.strip().lower() for option in headers.get("connection", "").split(",")]
    return Head(
        method=method,
        target=target,
        headers=headers,
        length=int(length or 0),
        keep_alive=bool(minor) and "close" not in options,
        asks_first=bool(minor) and expect is not None,
    )
