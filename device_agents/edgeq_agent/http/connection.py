"""Serve one connection: read requests strictly, check who sends them, respond, and end it in order."""

from __future__ import annotations

import io
import socket
import sys
import time
import traceback
from email.utils import formatdate
from http import HTTPStatus
from typing import Callable

from edgeq_agent import __version__
from edgeq_agent.http.access import HEALTH, Access, check_type
from edgeq_agent.http.admission import Admission, Client, Phase
from edgeq_agent.http.errors import Refused
from edgeq_agent.http.head import Head, read_head
from edgeq_agent.http.limits import Gate, Limits, TimedReader
from edgeq_agent.http.open_inference import Reply, Service, as_json

_SERVER = "edgeq-agent/" + __version__
_CHUNK_BYTES = 64 << 10
# How long, and how much, the rest of a refused request is read, so that the client sees the response.
_LINGER_S = 0.5
_LINGER_BYTES = 1 << 20
_RETRY = {"Retry-After": "1"}


class Connection:
    """One connection to the server.

    Args:
        client: its place among the others.
        busy: entered while a request is served, until its response is sent.
        is_ending: returns whether the server stops.
    """

    def __init__(
        self, client: Client, service: Service, access: Access, limits: Limits, admission: Admission,
        busy: Gate, is_ending: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._client = client
        self._socket: socket.socket = client.connection
        self._service = service
        self._access = access
        self._limits = limits
        self._admission = admission
        self._busy = busy
        self._is_ending = is_ending
        self._reader = TimedReader(self._socket)
        self._stream: io.BufferedReader = io.BufferedReader(self._reader, _CHUNK_BYTES)

    def serve(self) -> None:
        """Serve requests until one side ends the connection."""
        try:
            while self._serve_one():
                if self._client.reserved:
                    return
        except (socket.timeout, ConnectionError) as error:
            # The client is too slow or has disconnected: it gets no response, only the log an entry.
            problem = "another client needs its place" if self._client.evicted else str(error)
            sys.stderr.write(f"edgeq-agent serve: {self._client.peer}: connection ended: {problem}\n")
        finally:
            self._stream.detach()

    def _serve_one(self) -> bool:
        """Respond to one request; return whether there may be another one."""
        self._client.enter(Phase.HEAD)
        self._reader.allow(self._admission.header_s(self._limits.idle_s))
        first = self._stream.peek(1)[:1]
        if self._is_ending() or not first:
            return False
        if not (b" " < first <= b"~" or first in b"\r\n"):
            # Another protocol, such as TLS: its bytes may hold no line to wait for.
            return self._respond(None, _error(Refused(400, "not a request of HTTP/1.1")), False)
        self._reader.allow(self._admission.header_s(self._limits.header_s))
        try:
            head = read_head(self._stream)
        except Refused as refused:
            return self._respond(None, _error(refused), False)
        if head is None:
            return False
        self._busy.enter()
        try:
            return self._answer(head)
        finally:
            self._busy.leave()

    def _answer(self, head: Head) -> bool:
        extra: dict[str, str] = {}
        keep = head.keep_alive
        try:
            self._access.check(head)
            limit = self._limits.body_bytes
            if head.length > limit:
                raise Refused(413, f"the body: expected at most {limit} bytes, got {head.length}", close=True)
            check_type(head)
            if head.path in HEALTH and not head.length:
                reply = self._run(head, b"")
            elif self._client.reserved or not self._admission.take_slot(self._client):
                # The body was not read, so the connection cannot be used further.
                extra = _RETRY
                raise Refused(503, "too many requests at the same time", close=True)
            else:
                try:
                    reply = self._run(head, self._body(head))
                finally:
                    self._admission.free_slot(self._client)
        except Refused as refused:
            reply, keep = _error(refused), keep and not refused.close
        return self._respond(head, reply._replace(headers=dict(reply.headers, **extra)), keep)

    def _run(self, head: Head, body: bytes) -> Reply:
        self._client.enter(Phase.RUN)
        try:
            return self._service.respond(head.method, head.target, head.headers, body)
        except Refused:
            raise
        except Exception as error:  # the boundary of a request: the server goes on
            traceback.print_exc()
            raise Refused(500, f"a bug: {type(error).__name__}: {error}"[:300], close=True) from error

    def _body(self, head: Head) -> bytes:
        if not head.length:
            return b""
        self._client.enter(Phase.BODY)
        if head.asks_first:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._reader.allow(self._limits.body_s)
        # It grows as it arrives: an announced length alone takes no memory.
        body = bytearray()
        while len(body) < head.length:
            piece = self._stream.read1(min(_CHUNK_BYTES, head.length - len(body)))
            if not piece:
                raise ConnectionResetError(f"the client sent {len(body)} of {head.length} bytes")
            body += piece
        return bytes(body)

    def _respond(self, head: Head | None, reply: Reply, keep: bool) -> bool:
        """Send a response; return whether the connection stays open."""
        keep = keep and not (self._is_ending() or self._client.reserved)
        lines = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            "Server: " + _SERVER,
            "Date: " + formatdate(usegmt=True),
            *(f"{name}: {value}" for name, value in reply.headers.items()),
            f"Content-Length: {len(reply.body)}",
            # A page that embeds a response as a script or an image gets nothing.
            "X-Content-Type-Options: nosniff",
            "Cross-Origin-Resource-Policy: same-origin",
            *([] if keep else ["Connection: close"]),
        ]
        text = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._client.enter(Phase.SEND)
        self._write(text if head is not None and head.method == "HEAD" else text + reply.body)
        if not keep:
            self._linger()
        return keep

    def _write(self, data: bytes) -> None:
        self._socket.settimeout(self._limits.body_s)
        self._socket.sendall(data)

    def _linger(self) -> None:
        """Read what the client still sends: closing earlier would reset the connection and the response."""
        until_s, left_bytes = time.monotonic() + _LINGER_S, _LINGER_BYTES
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while left_bytes > 0 and time.monotonic() < until_s:
                self._socket.settimeout(max(0.01, until_s - time.monotonic()))
                data = self._socket.recv(_CHUNK_BYTES)
                if not data:
                    return
                left_bytes -= len(data)
        except OSError:
            return  # it goes on sending, or is gone: either way it had its time


def _error(refused: Refused) -> Reply:
    reply = as_json(refused.status, {"error": refused.message})
    if refused.status == 401:
        return reply._replace(headers=dict(reply.headers, **{"WWW-Authenticate": "Bearer"}))
    return reply
