"""A link that fails on purpose: a TCP proxy that can cut or freeze a connection after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_PIECE_BYTES = 16 * 1024


class FaultyLink:
    """Forwards connections to an address; from a byte count on it cuts or freezes them.

    Attributes:
        port: where it listens on 127.0.0.1.
        forwarded_bytes: what went towards the device so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._cut_at: int | None = None
        self._freeze_at: int | None = None
        self._end = threading.Event()
        self.forwarded_bytes = 0
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count_bytes: int) -> None:
        """End connections when that many more bytes went towards the device."""
        self._cut_at = self.forwarded_bytes + count_bytes

    def freeze_after(self, count_bytes: int) -> None:
        """Forward nothing any more, either way, after that many more bytes; connections stay open."""
        self._freeze_at = self.forwarded_bytes + count_bytes

    def mend(self) -> None:
        """Let new connections pass again."""
        self._cut_at = self._freeze_at = None

    def close(self) -> None:
        """End everything."""
        self._end.set()
        self._listener.close()
        self._drop()

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
            far.settimeout(None)
            self._open += [near, far]
            for source, sink, counts in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._forward, args=(source, sink, counts), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):  # either side left: both are closed below
            while piece := source.recv(_PIECE_BYTES):
                if self._freeze_at is not None and self.forwarded_bytes >= self._freeze_at:
                    self._end.wait()
                    return
                if counts:
                    self.forwarded_bytes += len(piece)
                    if self._cut_at is not None and self.forwarded_bytes >= self._cut_at:
                        self._drop()
                        return
                sink.sendall(piece)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        # Taken at once: a connection that is made while these end is none of them.
        doomed, self._open = self._open, []
        for sock in doomed:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def faulty_link(host: str, port: int) -> Iterator[FaultyLink]:
    """Run a faulty link in front of an address for the length of a `with` block."""
    link = FaultyLink(host, port)
    try:
        yield link
    finally:
        link.close()
