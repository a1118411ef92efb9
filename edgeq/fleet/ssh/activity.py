"""A socket that records when the other side was last active, for the detection of dead links."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from typing import Any

import paramiko

# The offset of `tcpi_bytes_acked` on Linux (since 4.1); elsewhere only received bytes count.
_ACKED = struct.Struct("=120xQ")
# More unsent bytes than this are a queue that delays a keepalive; fewer are our own keepalives.
_QUEUE_BYTES = 16 * 1024


class ActivitySocket:
    """A socket for paramiko that records when bytes were received.

    On a slow link a keepalive waits behind the data being sent. There the send queue is the evidence: as long
    as the other side acknowledges bytes of it, it is alive. Without a queue, acknowledgements prove nothing:
    the kernel sends them even for a process that hangs.
    """

    def __init__(self, sock: socket.socket | paramiko.Channel) -> None:
        self._sock = sock
        self._closed = False
        self._heard_s = time.monotonic()
        self._acked_bytes = 0
        self._queued = False

    def silent_s(self) -> float:
        """Return for how long the other side has been silent; to be called about once a second."""
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
        """Close the socket."""
        self._closed = True
        self._sock.close()

    def _queue(self) -> tuple[int, bool]:
        if not isinstance(self._sock, socket.socket) or not hasattr(socket, "TCP_INFO"):
            return 0, False
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
            (waiting,) = struct.unpack("=i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))
        except OSError:
            return 0, False  # closed meanwhile, or not TCP: then only received bytes count
        if len(info) < _ACKED.size:
            return 0, False
        (acked_bytes,) = _ACKED.unpack(info)
        return acked_bytes, waiting >= _QUEUE_BYTES
