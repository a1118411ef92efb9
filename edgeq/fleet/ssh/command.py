"""Run one command over a paramiko channel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import paramiko

from edgeq.fleet.remote_command import STATUS_WAIT_S, Link, RemoteCommand
from edgeq.fleet.transport import Limits

_PIECE_BYTES = 32 * 1024
_LEAST_PIECE_BYTES = 1024
# What paramiko reserves of each packet for its own fields.
_PACKET_HEAD_BYTES = 64
_POLL_S = 0.25


class SshCommand(RemoteCommand):
    """A running command; see `Running`."""

    def __init__(
        self,
        channel: paramiko.Channel,
        link: Link,
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None,
    ) -> None:
        super().__init__(link, limits=limits, on_sent=on_sent)
        self._channel = channel
        self._link = link
        channel.settimeout(_POLL_S)
        self._start(stdin)

    def _exit_status(self) -> int | None:
        if not self._dropped():
            self._channel.status_event.wait(STATUS_WAIT_S)
        self._drain_stderr()
        status = self._channel.exit_status if self._channel.status_event.is_set() else -1
        self._channel.close()
        return status if status >= 0 else None

    def _pieces(self) -> Iterator[bytes]:
        while True:
            try:
                piece = self._channel.recv(_PIECE_BYTES)
            except TimeoutError:
                self._drain_stderr()
                self._check_deadline()
                continue
            if not piece:
                break
            self._deadline.received()
            self._drain_stderr()
            self._check_deadline()
            yield piece
        transport = self._channel.get_transport()
        if self._send_error is not None:
            raise self._send_error
        if transport.is_active() and not self._was_accepted():
            raise self._refusal()
        if not self._channel.eof_received or not transport.is_active():
            raise self._link.lost()

    def _was_accepted(self) -> bool:
        # paramiko sets `event_ready` when the server accepts the request. Whether an end of output came with
        # a refusal says nothing: it depends on which side closed first. A server that starts the command in
        # its own thread may send the end of a short one before it accepts; only what ran has an exit status.
        # A refusal closes the channel, which sets `status_event` too.
        if not self._channel.event_ready:
            self._channel.status_event.wait(STATUS_WAIT_S)
        return bool(self._channel.event_ready) or self._channel.exit_status != -1

    def _send(self, stdin: Iterable[bytes]) -> None:
        # The largest piece that fits one packet: one byte more would cost a second packet.
        step = max(_LEAST_PIECE_BYTES, self._channel.out_max_packet_size - _PACKET_HEAD_BYTES)
        for chunk in stdin:
            for start in range(0, len(chunk), step):
                if not self._send_piece(chunk[start : start + step]):
                    return
        # The channel may be closed by now: the command ended without reading all, or the link is gone.
        # Whoever reads the output finds out which.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def _send_piece(self, piece: bytes) -> bool:
        while piece:
            if self._stop.is_set():
                return False
            try:
                sent = self._channel.send(piece)
            except TimeoutError:  # the other side's window is full; the reader checks the deadline
                continue
            except (OSError, EOFError, paramiko.SSHException):
                return False  # closed: see `_send`
            if sent == 0:
                return False
            piece = piece[sent:]
            self._note_sent(sent)
        return True

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            piece = self._channel.recv_stderr(_PIECE_BYTES)
            if not piece:
                return
            self._keep_stderr(piece)
