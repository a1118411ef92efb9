"""Client of the control protocol of an `ssh` master, version 4 (OpenSSH's PROTOCOL.mux).

Run as a client of its own master, the `ssh` program exits with 255 both for a command that exited with 255
and for a lost connection; the protocol distinguishes them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_VERSION = 4
_HELLO = 0x00000001
_NEW_SESSION = 0x10000002
_ALIVE_CHECK = 0x10000004
_DENIED = 0x80000002
_FAILURE = 0x80000003
_EXIT = 0x80000004
_ALIVE = 0x80000005
_OPENED = 0x80000006
_NO_ESCAPE = 0xFFFFFFFF
_MOST_BYTES = 256 * 1024
_PIECE_BYTES = 4096


class MuxError(Exception):
    """The master is gone, or sent an invalid response."""


class MuxRefused(Exception):
    """The master, or the server behind it, refuses to open a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packet:
    kind: int
    body: bytes

    def number(self, index: int) -> int:
        if len(self.body) < 4 * index + 4:
            raise MuxError(f"a short packet of type {self.kind:#x}")
        (value,) = struct.unpack_from(">I", self.body, 4 * index)
        return int(value)

    def reason(self) -> str:
        return self.body[8:].decode("utf-8", "replace").strip()


class Control:
    """One connection to a master; it carries one session, or alive checks."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        """Connect and agree on the version.

        Raises:
            MuxError: there is no master, or it has another protocol version.
            TimeoutError: it does not respond in time.
        """
        self._until_s = time.monotonic() + timeout_s
        self._request = 0
        self._buffer = b""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(timeout_s)
            self._sock.connect(str(path))
            hello = self._packet()
            if hello.kind != _HELLO or hello.number(0) != _VERSION:
                raise MuxError(f"does not support version {_VERSION} of the control protocol")
            self._send(_HELLO, struct.pack(">I", _VERSION))
        except TimeoutError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise MuxError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def start(self, command: str, streams: Sequence[int], *, timeout_s: float) -> None:
        """Start a command with these three descriptors as its standard streams; the master then owns copies.

        Raises:
            MuxRefused: no session is opened; the message has the reason.
            MuxError, TimeoutError: the master is gone, or does not respond in time.
        """
        self._until_s = time.monotonic() + timeout_s
        request = self._next_request()
        # No terminal, X11, agent or subsystem; an empty terminal type and environment.
        head = struct.pack(">IIIIIII", request, 0, 0, 0, 0, 0, _NO_ESCAPE)
        try:
            self._send(_NEW_SESSION, head + _text(b"") + _text(command.encode()))
            for stream in streams:
                socket.send_fds(self._sock, [b"\0"], [stream])
        except TimeoutError:
            raise
        except OSError as error:
            raise MuxError(str(error)) from error
        reply = self._packet()
        if reply.kind in (_DENIED, _FAILURE):
            raise MuxRefused(reply.reason() or "no reason given")
        if reply.kind != _OPENED or reply.number(0) != request:
            raise MuxError(f"unexpected reply {reply.kind:#x} to a new session")

    def check_alive(self, *, timeout_s: float) -> None:
        """Check that the master responds.

        Raises:
            MuxError, TimeoutError: it is gone, or does not respond in time.
        """
        self._until_s = time.monotonic() + timeout_s
        request = self._next_request()
        try:
            self._send(_ALIVE_CHECK, struct.pack(">I", request))
        except TimeoutError:
            raise
        except OSError as error:
            raise MuxError(str(error)) from error
        reply = self._packet()
        if reply.kind != _ALIVE or reply.number(0) != request:
            raise MuxError(f"unexpected reply {reply.kind:#x} to an alive check")

    def exit_status(self, *, timeout_s: float, after_s: float) -> int | None:
        """Wait for the end of the session; return None if it has no status: ended by a signal, or lost.

        Args:
            after_s: how long the master may take to close the session after its status.

        Raises:
            TimeoutError: it has not ended.
        """
        self._until_s = time.monotonic() + timeout_s
        status: int | None = None
        while True:
            try:
                packet = self._packet()
            except MuxError:
                return status
            except TimeoutError:
                if status is None:
                    raise
                return status  # a background process still holds a stream
            if packet.kind == _EXIT:
                status = packet.number(1)
                self._until_s = time.monotonic() + after_s

    def close(self) -> None:
        """Close the connection and a session that still runs; a thread that waits in it is released."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_request(self) -> int:
        self._request += 1
        return self._request

    def _send(self, kind: int, body: bytes) -> None:
        data = struct.pack(">I", kind) + body
        self._sock.settimeout(self._left_s())
        self._sock.sendall(struct.pack(">I", len(data)) + data)

    def _packet(self) -> _Packet:
        # Bytes that arrived before a timeout are kept for the next call.
        (count,) = struct.unpack(">I", self._read(4))
        if not 4 <= count <= _MOST_BYTES:
            raise MuxError(f"invalid packet size: {count} bytes")
        data = self._read(4 + count)[4:]
        self._buffer = self._buffer[4 + count :]
        (kind,) = struct.unpack_from(">I", data)
        return _Packet(kind=kind, body=data[4:])

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                self._sock.settimeout(self._left_s())
                piece = self._sock.recv(_PIECE_BYTES)
            except TimeoutError:
                raise
            except OSError as error:
                raise MuxError(str(error)) from error
            if not piece:
                raise MuxError("the master closed the connection")
            self._buffer += piece
        return self._buffer[:count]

    def _left_s(self) -> float:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no response from the ssh program")
        return left_s


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
