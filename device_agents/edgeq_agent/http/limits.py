"""What one client may cost the server: bytes, time and connections, each with a bound."""

from __future__ import annotations

import io
import socket
import threading
import time
from typing import Any, NamedTuple


class Limits(NamedTuple):
    """The bounds of a server.

    Attributes:
        body_bytes: of one request.
        header_s: from the first byte of a request to the end of its headers.
        body_s: from there to the end of its body, and for the answer to be taken.
        idle_s: that an open connection may wait for its next request.
        connections: open at the same time; more are closed at once.
        requests: being worked on at the same time; more are refused (503).
    """

    body_bytes: int = 32 << 20
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 60.0
    connections: int = 64
    requests: int = 16


class TimedReader(io.RawIOBase):
    """A socket's incoming bytes, with one deadline for all reads: a client that drips is late as well."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._until_s: float = time.monotonic()

    def allow(self, seconds: float) -> None:
        """Set the deadline from now on."""
        self._until_s = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there.

        Raises:
            socket.timeout: the deadline has passed.
        """
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise socket.timeout("the client is too slow")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class Gate:
    """Lets a number of things be under way at the same time, and tells when none is."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """Begin one, unless there are too many; tell whether it may."""
        with self._changed:
            if self._count >= self._most:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        """End one."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def empty(self, timeout_s: float) -> bool:
        """Wait until none is under way; tell whether that came true."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_s)
