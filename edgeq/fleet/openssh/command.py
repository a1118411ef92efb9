"""One command through a master: its streams are pipes of ours, its end is told on the control connection."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from edgeq.errors import DeviceTimeout, LinkLost, TransportError
from edgeq.fleet.deadlines import Pace
from edgeq.fleet.openssh.mux import Control
from edgeq.fleet.transport import Ended, Limits
from edgeq_agent.wire import split_lines

_PIECE_BYTES = 64 * 1024
_POLL_S = 0.25
_STDERR_BYTES = 8 * 1024
_STATUS_WAIT_S = 5.0
_CLOSE_WAIT_S = 1.0
# ssh writes this, in English, in the place of the command's standard error; or nothing, where the server
# closes at once.
_REFUSED = b"exec request failed on channel"
# What ssh said last may still be on its way here.
_LOG_WAIT_S = 0.5


class Link(Protocol):
    """What a command needs of its connection."""

    @property
    def name(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    @property
    def signals(self) -> int: ...
    def lost(self) -> LinkLost | DeviceTimeout: ...
    def close(self) -> None: ...


class OpensshCommand:
    """A command under way; see `Running`."""

    def __init__(
        self,
        control: Control,
        link: Link,
        streams: tuple[int, int, int],
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None,
        signals_before: int,
    ) -> None:
        self._control = control
        self._link = link
        self._in, self._out, self._err = streams
        self._on_sent = on_sent
        self._pace = Pace(link.name, limits)
        self._stderr = b""
        self._sent_bytes = 0
        self._send_error: Exception | None = None
        self._status: int | None = None
        self._signals_before = signals_before
        self._stop = threading.Event()
        self._poll = select.poll()
        for stream in (self._out, self._err):
            os.set_blocking(stream, False)
            self._poll.register(stream, select.POLLIN)
        self._sender = threading.Thread(
            target=self._send, args=(stdin,), name=f"edgeq-send-{link.name}", daemon=True
        )
        self._sender.start()

    def lines(self) -> Iterator[bytes]:
        """Yield the output's lines; see `Running.lines`."""
        try:
            yield from split_lines(self._pieces())
        finally:
            self._release()

    def ended(self) -> Ended:
        """Return how it ended; see `Running.ended`."""
        self._release()
        self._sender.join(_STATUS_WAIT_S)
        return Ended(
            exit_status=self._status,
            stderr=self._stderr.decode("utf-8", "replace").strip(),
            sent_bytes=self._sent_bytes,
        )

    def _pieces(self) -> Iterator[bytes]:
        while self._out >= 0:
            ready = {stream for stream, _ in self._poll.poll(_POLL_S * 1000)}
            if self._err in ready:
                self._drain_stderr()
            passed = self._pace.passed()
            if passed is not None:
                self._stop.set()
                self._link.close()
                raise passed
            if self._out not in ready:
                continue
            piece = os.read(self._out, _PIECE_BYTES)
            if not piece:
                break
            self._pace.answered()
            yield piece
        self._find_end()

    def _find_end(self) -> None:
        try:
            self._status = self._control.exit_status(timeout_s=_STATUS_WAIT_S, after_s=_CLOSE_WAIT_S)
        except TimeoutError:
            return  # it closed its output and goes on
        self._drain_to_the_end()
        if self._send_error is not None:
            raise self._send_error
        # A status may come before the last of the output does: without the link that may be missing.
        if not self._link.alive:
            raise self._link.lost()
        if self._status is None and self._was_refused():
            raise TransportError(
                self._link.name,
                "its SSH server refuses to start a command",
                hint="is the account there for sftp or tunnels alone (ForceCommand, a nologin shell)?",
            )

    def _was_refused(self) -> bool:
        # A server that ran it says how it ended: by a status or by a signal. Here it gave no status.
        if self._pace.has_answered or (self._stderr and _REFUSED not in self._stderr):
            return False
        until_s = time.monotonic() + _LOG_WAIT_S
        while time.monotonic() < until_s:
            if self._link.signals > self._signals_before:
                return False
            time.sleep(_LOG_WAIT_S / 10)
        return True

    def _drain_to_the_end(self) -> None:
        until_s = time.monotonic() + _STATUS_WAIT_S
        while self._err >= 0 and time.monotonic() < until_s:
            if _ready(self._err, select.POLLIN):
                self._drain_stderr()

    def _drain_stderr(self) -> None:
        try:
            piece = os.read(self._err, _PIECE_BYTES)
        except BlockingIOError:
            return
        if piece:
            self._stderr = (self._stderr + piece)[-_STDERR_BYTES:]
            return
        self._poll.unregister(self._err)
        os.close(self._err)
        self._err = -1

    def _release(self) -> None:
        self._stop.set()
        self._control.close()
        for stream in (self._out, self._err):
            if stream >= 0:
                os.close(stream)
        self._out = self._err = -1

    def _send(self, stdin: Iterable[bytes]) -> None:
        os.set_blocking(self._in, False)
        try:
            for chunk in stdin:
                if not self._send_chunk(memoryview(chunk)):
                    return
        except Exception as error:  # noqa: BLE001 - of whoever produces the input; raised by `lines`
            self._send_error = error
            self._link.close()
        finally:
            os.close(self._in)  # the end of the command's input

    def _send_chunk(self, chunk: memoryview) -> bool:
        while chunk:
            if self._stop.is_set():
                return False
            if not _ready(self._in, select.POLLOUT):
                continue  # the other side takes no more; the reader watches the clock
            try:
                sent = os.write(self._in, chunk[:_PIECE_BYTES])
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False  # ended without reading all, or the link is gone: the reader tells which
            chunk = chunk[sent:]
            self._sent_bytes += sent
            self._pace.moved()
            if self._on_sent is not None:
                self._on_sent(sent)
        return True


def _ready(stream: int, event: int) -> bool:
    # Not `select`, which knows no descriptor above 1023: a large fleet has more.
    poll = select.poll()
    poll.register(stream, event)
    return bool(poll.poll(_POLL_S * 1000))
