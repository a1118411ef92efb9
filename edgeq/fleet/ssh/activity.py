"""A socket that knows when the other side was last heard of: what every judgement of a dead link rests on."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from typing import Any

import paramiko

# Where Linux keeps `tcpi_bytes_acked` (since 4.1); elsewhere only what is received counts.
_ACKED = struct.Struct("=120xQ")
# So many bytes on the way are a queue, in which a sign of life may have to wait; less are our own questions.
_QUEUE_BYTES = 16 * 1024


class Lifeline:
    """Passes bytes through, and notes when some were received; what paramiko takes for a socket.

    On a slow link the question for a sign of life waits behind what is being sent. There the queue itself is
    the sign: as long as the other side takes bytes out of it, it lives. Without a queue, acknowledgements
    prove nothing: a kernel gives them for a process that hangs.
    """

    def __init__(self, sock: socket.socket | paramiko.Channel) -> None:
        self._sock = sock
        self._closed = False
        self._heard_s = time.monotonic()
        self._acked_bytes = 0
        self._queued = False

    def silent_s(self) -> float:
        """Return for how long there was no sign of the other side; ask every second or so."""
        acked_bytes, queued = self._queue()
        if acked_bytes > self._acked_bytes and self._queued:
            self._heard_s = time.monotonic()
        self._acked_bytes, self._queued = acked_bytes, queued
        return time.monotonic() - self._heard_s

    def recv(self, count: int) -> bytes:
        """Receive; see `socket.recv`."""
        data = self._sock.recv(count)
        if data:
            self._heard_s = time.monotonic()
        return data

    def send(self, data: bytes) -> int:
        """Send; see `socket.send`."""
        return self._sock.send(data)

    def settimeout(self, value: float | None) -> None:
        """Set how long `recv` and `send` may take."""
        self._sock.settimeout(value)

    def getpeername(self) -> Any:
        """Return the other side's address."""
        return self._sock.getpeername()

    def close(self) -> None:
        """Close it."""
        self._closed = True
        self._sock.close()

    def _queue(self) -> tuple[int, bool]:
        if not isinstance(self._sock, socket.socket) or not hasattr(socket, "TCP_INFO"):
            return 0, False
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
            (waiting,) = struct.unpack("=i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))
        except OSError:
            return 0, False  # closed meanwhile, or no TCP: then only what is received counts
        if len(info) < _ACKED.size:
            return 0, False
        (acked_bytes,) = _ACKED.unpack(info)
        return acked_bytes, waiting >= _QUEUE_BYTES
