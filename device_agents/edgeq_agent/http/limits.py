"""Limits on what a client can use of the server: bytes, time and connections."""

from __future__ import annotations

import io
import socket
import threading
import time
from typing import Any, NamedTuple


class Limits(NamedTuple):
    """The limits of a server.

    Attributes:
        body_bytes: the size of one request's body.
        header_s: the time from the first byte of a request to the end of its headers.
        loaded_header_s: the same, and `idle_s`, while more than half of the connections are open.
        body_s: the time to receive the body, and the time to send the response.
        idle_s: the time that a connection may stay open between two requests.
        connections: how many may be open at the same time. One more ends one that waits for its client.
        newcomers: how many more may be open, for users that have only a few.
        reserved: how many more may be open for one request on health each.
        requests: how many requests may run at the same time; more get 503. Users that have none may run a
            quarter more together.
        grace_s: the time that a connection may wait for its client before another one can take its place.
        body_grace_s: the same while it receives a body or sends a response.
    """

    body_bytes: int = 32 << 20
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 60.0
    connections: int = 64
    requests: int = 16
    loaded_header_s: float = 2.0
    newcomers: int = 16
    reserved: int = 4
    grace_s: float = 0.25
    body_grace_s: float = 2.0


class TimedReader(io.RawIOBase):
    """A socket's incoming bytes, with one deadline for all reads: it also stops a client that drips bytes."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._until_s: float = time.monotonic()

    def allow(self, seconds: float) -> None:
        """Set the deadline, counted from now."""
        self._until_s = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the bytes that are available.

        Raises:
            socket.timeout: the deadline has passed.
        """
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise socket.timeout("the client is too slow")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class Gate:
    """A counter of what is inside, which can wait until nothing is."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Enter."""
        with self._changed:
            self._count += 1

    def leave(self) -> None:
        """Leave."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until everything has left; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_s)
