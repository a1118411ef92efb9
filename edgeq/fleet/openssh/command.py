"""Run one command through an ssh master: streams are pipes, the exit status arrives on the control socket."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from edgeq.fleet.openssh.mux import Control
from edgeq.fleet.remote_command import STATUS_WAIT_S, Link, RemoteCommand
from edgeq.fleet.transport import Limits

_PIECE_BYTES = 64 * 1024
_POLL_S = 0.25
_CLOSE_WAIT_S = 1.0
# ssh writes this in English instead of the command's standard error, or nothing if the server closes at once.
_REFUSED = b"exec request failed on channel"
# The last lines of ssh's log may still be on their way.
_LOG_WAIT_S = 0.5


class MasterLink(Link, Protocol):
    """The connection of an ssh master."""

    @property
    def alive(self) -> bool: ...
    @property
    def signals(self) -> int: ...


class OpensshCommand(RemoteCommand):
    """A running command; see `Running`."""

    def __init__(
        self,
        control: Control,
        link: MasterLink,
        streams: tuple[int, int, int],
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None,
        signals_before: int,
    ) -> None:
        super().__init__(link, limits=limits, on_sent=on_sent)
        self._control = control
        self._link = link
        self._in, self._out, self._err = streams
        self._status: int | None = None
        self._signals_before = signals_before
        self._poll = select.poll()
        for stream in (self._out, self._err):
            os.set_blocking(stream, False)
            self._poll.register(stream, select.POLLIN)
        self._start(stdin)

    def _exit_status(self) -> int | None:
        return self._status

    def _pieces(self) -> Iterator[bytes]:
        while self._out >= 0:
            ready = {stream for stream, _ in self._poll.poll(_POLL_S * 1000)}
            if self._err in ready:
                self._drain_stderr()
            self._check_deadline()
            if self._out not in ready:
                continue
            piece = os.read(self._out, _PIECE_BYTES)
            if not piece:
                break
            self._deadline.received()
            yield piece
        self._find_end()

    def _find_end(self) -> None:
        try:
            self._status = self._control.exit_status(timeout_s=STATUS_WAIT_S, after_s=_CLOSE_WAIT_S)
        except TimeoutError:
            return  # it closed its output and is still running
        self._drain_to_the_end()
        if self._send_error is not None:
            raise self._send_error
        # A status may arrive before the last output: if the link is gone, some of it may be missing.
        if not self._link.alive:
            raise self._link.lost()
        if self._status is None and self._was_refused():
            raise self._refusal()

    def _was_refused(self) -> bool:
        # A server that ran the command reports a status or a signal. Here there was no status.
        if self._deadline.has_output or (self._stderr and _REFUSED not in self._stderr):
            return False
        until_s = time.monotonic() + _LOG_WAIT_S
        while time.monotonic() < until_s:
            if self._link.signals > self._signals_before:
                return False
            time.sleep(_LOG_WAIT_S / 10)
        return True

    def _drain_to_the_end(self) -> None:
        until_s = time.monotonic() + STATUS_WAIT_S
        while self._err >= 0 and time.monotonic() < until_s:
            if _ready(self._err, select.POLLIN):
                self._drain_stderr()

    def _drain_stderr(self) -> None:
        try:
            piece = os.read(self._err, _PIECE_BYTES)
        except BlockingIOError:
            return
        if piece:
            self._keep_stderr(piece)
            return
        self._poll.unregister(self._err)
        os.close(self._err)
        self._err = -1

    def _release(self) -> None:
        super()._release()
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
        except Exception as error:  # noqa: BLE001 - of the producer of the input; `_pieces` raises it
            # Before the input is closed: the command would take a part of its input for all of it.
            self._fail(error)
        finally:
            os.close(self._in)  # the end of the command's input

    def _send_chunk(self, chunk: memoryview) -> bool:
        while chunk:
            if self._stop.is_set():
                return False
            if not _ready(self._in, select.POLLOUT):
                continue  # the other side reads no more; the reader checks the deadline
            try:
                sent = os.write(self._in, chunk[:_PIECE_BYTES])
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False  # ended without reading all, or the link is gone; the reader finds out which
            chunk = chunk[sent:]
            self._note_sent(sent)
        return True


def _ready(stream: int, event: int) -> bool:
    # Not `select`, which cannot handle a descriptor above 1023: a large fleet has more.
    poll = select.poll()
    poll.register(stream, event)
    return bool(poll.poll(_POLL_S * 1000))
