"""One command over an SSH channel: a thread sends its input, the caller reads its output, on the clock."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import paramiko

from edgeq.errors import DeviceTimeout, LinkLost, TransportError
from edgeq.fleet.deadlines import Pace
from edgeq.fleet.transport import Ended, Limits
from edgeq_agent.wire import split_lines

_PIECE_BYTES = 32 * 1024
_LEAST_PIECE_BYTES = 1024
# What paramiko keeps free of each packet for its own fields.
_PACKET_HEAD_BYTES = 64
_POLL_S = 0.25
_STDERR_BYTES = 8 * 1024
_STATUS_WAIT_S = 5.0


class Link(Protocol):
    """What a command needs of its connection."""

    @property
    def name(self) -> str: ...
    def lost(self) -> LinkLost | DeviceTimeout: ...
    def close(self) -> None: ...


class SshCommand:
    """A command under way; see `Running`."""

    def __init__(
        self,
        channel: paramiko.Channel,
        link: Link,
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None,
    ) -> None:
        self._channel = channel
        self._link = link
        self._on_sent = on_sent
        self._stderr = b""
        self._sent_bytes = 0
        self._send_error: Exception | None = None
        self._pace = Pace(link.name, limits)
        self._stop = threading.Event()
        channel.settimeout(_POLL_S)
        self._sender = threading.Thread(
            target=self._send, args=(stdin,), name=f"edgeq-send-{link.name}", daemon=True
        )
        self._sender.start()

    def lines(self) -> Iterator[bytes]:
        """Yield the output's lines; see `Running.lines`."""
        try:
            yield from split_lines(self._pieces())
        finally:
            self._stop.set()

    def ended(self) -> Ended:
        """Return how it ended; see `Running.ended`."""
        self._stop.set()
        self._channel.status_event.wait(_STATUS_WAIT_S)
        self._drain_stderr()
        status = self._channel.exit_status if self._channel.status_event.is_set() else -1
        self._channel.close()
        self._sender.join(_STATUS_WAIT_S)
        return Ended(
            exit_status=status if status >= 0 else None,
            stderr=self._stderr.decode("utf-8", "replace").strip(),
            sent_bytes=self._sent_bytes,
        )

    def _pieces(self) -> Iterator[bytes]:
        while True:
            try:
                piece = self._channel.recv(_PIECE_BYTES)
            except TimeoutError:
                self._drain_stderr()
                self._check_clock()
                continue
            if not piece:
                break
            self._pace.answered()
            self._drain_stderr()
            self._check_clock()
            yield piece
        transport = self._channel.get_transport()
        if self._send_error is not None:
            raise self._send_error
        # paramiko notes here that the server agreed to the request. Whether its end of output came with the
        # refusal tells nothing: that depends on which side closed first.
        if transport.is_active() and not self._channel.event_ready:
            raise TransportError(
                self._link.name,
                "its SSH server refuses to start a command",
                hint="is the account there for sftp or tunnels alone (ForceCommand, a nologin shell)?",
            )
        if not self._channel.eof_received or not transport.is_active():
            raise self._link.lost()

    def _check_clock(self) -> None:
        passed = self._pace.passed()
        if passed is not None:
            self._stop.set()
            self._link.close()
            raise passed

    def _send(self, stdin: Iterable[bytes]) -> None:
        try:
            # As large as one packet may be: a byte more would cost a second packet.
            step = max(_LEAST_PIECE_BYTES, self._channel.out_max_packet_size - _PACKET_HEAD_BYTES)
            for chunk in stdin:
                for start in range(0, len(chunk), step):
                    if not self._send_piece(chunk[start : start + step]):
                        return
        except Exception as error:  # noqa: BLE001 - of whoever produces the input; raised by `ended` or `lines`
            self._send_error = error
            self._link.close()
            return
        # The channel may be closed by now: the command ended without reading all, or the link is gone. The
        # reader of its output tells which of the two.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def _send_piece(self, piece: bytes) -> bool:
        while piece:
            if self._stop.is_set():
                return False
            try:
                sent = self._channel.send(piece)
            except TimeoutError:  # the other side's window is full; the reader watches the clock
                continue
            except (OSError, EOFError, paramiko.SSHException):
                return False  # closed: see `_send`
            if sent == 0:
                return False
            piece = piece[sent:]
            self._sent_bytes += sent
            self._pace.moved()
            if self._on_sent is not None:
                self._on_sent(sent)
        return True

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            piece = self._channel.recv_stderr(_PIECE_BYTES)
            if not piece:
                return
            self._stderr = (self._stderr + piece)[-_STDERR_BYTES:]
