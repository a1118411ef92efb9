"""A TCP proxy that injects faults: it freezes, cuts, delays or throttles a link, or flips a bit."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from enum import StrEnum

from edgeq.testing.proxy_direction import Faults, ProxyDirection


class Direction(StrEnum):
    """A direction through the link."""

    TO_DEVICE = "to-device"
    FROM_DEVICE = "from-device"
    BOTH = "both"


class FaultyLink:
    """Forwards connections to an address, and injects the faults that its methods set.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._to_device, self._from_device = Faults(), Faults()
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._directions: list[ProxyDirection] = []
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="edgeq-link-accept", daemon=True)
        self._acceptor.start()

    @property
    def forwarded_bytes(self) -> int:
        """Bytes sent towards the device so far."""
        return self._to_device.passed_bytes

    def cut_after(self, count_bytes: int) -> None:
        """Cut all connections after exactly that many more bytes towards the device."""
        self._to_device.cut_at = self._to_device.passed_bytes + count_bytes

    def freeze_after(self, count_bytes: int, direction: Direction = Direction.BOTH) -> None:
        """Stop forwarding after that many more bytes; connections stay open, new ones are accepted.

        BOTH counts the bytes towards the device; a single direction counts its own.
        """
        if direction is Direction.FROM_DEVICE:
            self._from_device.freeze_at = self._from_device.passed_bytes + count_bytes
            return
        self._to_device.freeze_at = self._to_device.passed_bytes + count_bytes
        self._from_device.follows = self._to_device if direction is Direction.BOTH else None

    def delay(self, one_way_s: float) -> None:
        """Delay each byte in both directions; a round trip takes longer by twice that."""
        for faults in self._both():
            faults.delay_s = one_way_s

    def drip(self, bytes_per_s: float) -> None:
        """Throttle each direction to that rate."""
        for faults in self._both():
            faults.bytes_per_s = bytes_per_s

    def flip_after(self, count_bytes: int, direction: Direction = Direction.TO_DEVICE) -> None:
        """Flip one bit of the byte after that many more."""
        for faults, own in zip(self._both(), (Direction.TO_DEVICE, Direction.FROM_DEVICE), strict=True):
            if direction in (own, Direction.BOTH):
                faults.flip_at = faults.passed_bytes + count_bytes

    def clear(self) -> None:
        """Remove all faults."""
        for faults in self._both():
            faults.clear()

    def close(self) -> None:
        """Close all connections, and wait for the threads."""
        self._end.set()
        # On some systems, closing the socket alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()
        self._acceptor.join(5)
        for direction in self._directions:
            direction.join(5)

    def _both(self) -> tuple[Faults, Faults]:
        return self._to_device, self._from_device

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(self._target, timeout=5)
            except OSError:
                near.close()
                continue
            for sock in (near, far):
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._end.is_set():
                    near.close()
                    far.close()
                    return
                self._open.append((near, far))
                for source, sink, faults in ((near, far, self._to_device), (far, near, self._from_device)):
                    self._directions.append(
                        ProxyDirection(source, sink, faults, end=self._end, cut=self._drop)
                    )

    def _drop(self) -> None:
        # Swapped under the lock: a connection made meanwhile is not among them.
        with self._lock:
            doomed, self._open = self._open, []
        for pair in doomed:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()


@contextlib.contextmanager
def faulty_link(host: str, port: int) -> Iterator[FaultyLink]:
    """Run a faulty link in front of an address for the duration of a `with` block."""
    link = FaultyLink(host, port)
    try:
        yield link
    finally:
        link.close()
