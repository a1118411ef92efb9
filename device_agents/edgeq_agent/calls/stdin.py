"""Read standard input with an idle timeout, so that a dead connection cannot block a call."""

from __future__ import annotations

import os
import select

IDLE_S = 60.0
_CHUNK_BYTES = 256 * 1024


class IdleTimeout(Exception):
    """No byte arrived within the idle timeout."""


class Stdin:
    """A reader of a file descriptor; every wait for more bytes is bounded.

    Args:
        idle_s: how long a read waits for the next byte.
        early: bytes that were read from the descriptor before.
    """

    def __init__(self, descriptor: int, idle_s: float = IDLE_S, early: bytes = b"") -> None:
        self._descriptor = descriptor
        self._idle_s = idle_s
        # Unread bytes begin at `_at`, so that a small read from a large buffer copies little.
        self._buffer = early
        self._at = 0

    def readline(self, limit: int) -> bytes:
        """Return the bytes up to and including the next newline, at most `limit`.

        At the end of input the last line has no newline.

        Raises:
            IdleTimeout: no byte arrived in time.
        """
        while self._buffer.find(b"\n", self._at) < 0 and len(self._buffer) - self._at < limit:
            chunk = self._more()
            if not chunk:
                break
            self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        end = self._buffer.find(b"\n", self._at) + 1 or len(self._buffer)
        return self._take(min(end - self._at, limit))

    def read(self, limit: int) -> bytes:
        """Return 1 to `limit` bytes, or none at the end of input.

        Raises:
            IdleTimeout: no byte arrived in time.
        """
        if self._at == len(self._buffer):
            self._buffer, self._at = self._more(), 0
        return self._take(limit)

    def read_exactly(self, count: int) -> bytearray:
        """Return `count` bytes, fewer at the end of input; they are read into place, without a copy.

        Raises:
            IdleTimeout: no byte arrived in time.
        """
        data = bytearray(count)
        head = self._take(count)
        done = len(head)
        data[:done] = head
        with memoryview(data) as view:
            while done < count:
                self._wait()
                count_read = os.readv(self._descriptor, [view[done:]])
                if not count_read:
                    break
                done += count_read
        del data[done:]
        return data

    def _take(self, count: int) -> bytes:
        head = self._buffer[self._at : self._at + count]
        self._at += len(head)
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
        return head

    def _more(self) -> bytes:
        self._wait()
        return os.read(self._descriptor, _CHUNK_BYTES)

    def _wait(self) -> None:
        ready, _, _ = select.select([self._descriptor], [], [], self._idle_s)
        if not ready:
            raise IdleTimeout(f"silent for {self._idle_s:g} s")
