"""One direction of a connection through a faulty link: read, delay, damage, write."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

_PIECE_BYTES = 64 * 1024
_HELD_BYTES = 8 * 1024 * 1024
_POLL_S = 0.05


class Faults:
    """The faults of all connections in one direction; byte counts are totals over them."""

    def __init__(self) -> None:
        self.passed_bytes = 0
        self.clear()

    def clear(self) -> None:
        """Remove all faults."""
        self.cut_at: int | None = None
        self.freeze_at: int | None = None
        self.flip_at: int | None = None
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.follows: Faults | None = None

    @property
    def frozen(self) -> bool:
        """Whether nothing is forwarded now."""
        own = self.freeze_at is not None and self.passed_bytes >= self.freeze_at
        return own or (self.follows is not None and self.follows.frozen)

    def allowance(self) -> int:
        """Return how many bytes may be forwarded in one piece before the next fault."""
        ends = [at - self.passed_bytes for at in (self.cut_at, self.freeze_at) if at is not None]
        if self.bytes_per_s is not None:
            ends.append(max(1, int(self.bytes_per_s * _POLL_S)))
        return min([_PIECE_BYTES, *(end for end in ends if end > 0)])

    def damage(self, piece: bytes) -> bytes:
        """Return a piece with its damage."""
        at = -1 if self.flip_at is None else self.flip_at - self.passed_bytes
        if not 0 <= at < len(piece):
            return piece
        self.flip_at = None
        return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


class ProxyDirection:
    """Forwards bytes from one socket to another; two threads, so that a delay does not stop reading."""

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        faults: Faults,
        *,
        end: threading.Event,
        cut: Callable[[], None],
    ) -> None:
        self._source, self._sink, self._faults, self._end, self._cut = source, sink, faults, end, cut
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()
        self._left = False
        self._threads = [
            threading.Thread(target=work, name="edgeq-link", daemon=True)
            for work in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for its threads."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _read(self) -> None:
        piece = b"first"
        while piece:
            try:
                piece = self._source.recv(_PIECE_BYTES)
            except OSError:
                piece = b""  # a side closed: held bytes still go out, then both are closed
            with self._changed:
                self._held.append((time.monotonic() + self._faults.delay_s, piece))
                self._held_bytes += len(piece)
                self._changed.notify_all()
                # A slow link must slow its sender down, too.
                most = _HELD_BYTES if self._faults.bytes_per_s is None else _PIECE_BYTES
                while self._held_bytes > most and not self._left:
                    self._changed.wait(_POLL_S)

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._next():
                while piece:
                    if self._wait_while_frozen():
                        return
                    count = self._faults.allowance()
                    self._sink.sendall(self._faults.damage(piece[:count]))
                    self._faults.passed_bytes += len(piece[:count])
                    piece = piece[count:]
                    if self._faults.cut_at is not None and self._faults.passed_bytes >= self._faults.cut_at:
                        self._cut()
                        return
                    if self._faults.bytes_per_s is not None:
                        self._end.wait(count / self._faults.bytes_per_s)
        with self._changed:
            self._left = True
        for sock in (self._source, self._sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _next(self) -> bytes:
        with self._changed:
            while not self._held:
                self._changed.wait()
            due_s, piece = self._held.popleft()
            self._held_bytes -= len(piece)
            self._changed.notify_all()
        left_s = due_s - time.monotonic()
        if left_s > 0:
            self._end.wait(left_s)
        return piece

    def _wait_while_frozen(self) -> bool:
        """Return True when the link is closed meanwhile."""
        while self._faults.frozen:
            if self._end.wait(_POLL_S):
                return True
        return False
