"""A command on a device: a thread sends its input, the caller reads its output, both under deadlines."""

from __future__ import annotations

import dataclasses
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from edgeq.errors import AgentProtocolError, DeviceTimeout, LinkLost, TransportError
from edgeq.fleet.transport import Ended, Limits
from edgeq.units import format_size
from edgeq_agent.wire import split_lines

# How long to wait for the exit status after the end of the output, and for the sending thread.
STATUS_WAIT_S = 5.0
_STDERR_BYTES = 8 * 1024


class Link(Protocol):
    """The connection that a command runs on."""

    @property
    def name(self) -> str: ...
    def lost(self) -> LinkLost | DeviceTimeout: ...
    def close(self) -> None: ...


class _EnoughOutput(Exception):
    """The rest of the output is dropped."""


class CommandDeadline:
    """The idle and total timeouts of one command.

    Attributes:
        has_output: whether the command has written anything yet.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self._name = name
        self._limits = limits
        self._started_s = self._moved_s = time.monotonic()
        self.has_output = False

    def allow(self, silence_s: float) -> None:
        """Set the idle timeout that applies from now on."""
        self._limits = dataclasses.replace(self._limits, first_s=silence_s, silence_s=silence_s)

    def moved(self) -> None:
        """Bytes moved, in either direction."""
        self._moved_s = time.monotonic()

    def received(self) -> None:
        """The command wrote something: from now on the shorter idle timeout applies."""
        self.has_output = True
        self.moved()

    def error(self) -> DeviceTimeout | None:
        """Return the error for a timeout that has passed, or None."""
        now_s = time.monotonic()
        idle_s = self._limits.silence_s if self.has_output else self._limits.first_s
        if now_s - self._moved_s > idle_s:
            problem = f"no output for {now_s - self._moved_s:.0f} s"
        elif now_s - self._started_s > self._limits.total_s:
            problem = f"not finished after {now_s - self._started_s:.0f} s"
        else:
            return None
        return DeviceTimeout(self._name, problem, hint="check the device's load, then try again")


class RemoteCommand(ABC):
    """What the commands of all transports share; see `Running`."""

    def __init__(self, link: Link, *, limits: Limits, on_sent: Callable[[int], None] | None) -> None:
        self._name = link.name
        self._close_link = link.close
        self._on_sent = on_sent
        self._deadline = CommandDeadline(link.name, limits)
        self._output_bytes = limits.output_bytes
        self._stop = threading.Event()
        self._stderr = b""
        self._sent_bytes = 0
        self._send_error: Exception | None = None
        self._sender: threading.Thread | None = None
        self._drop_after_s: float | None = None
        self.out_of_time = False

    def lines(self) -> Iterator[bytes]:
        """Yield the output's lines; see `Running.lines`."""
        try:
            yield from split_lines(self._bounded_pieces())
        except _EnoughOutput:
            return
        finally:
            self._release()

    def allow_silence(self, silence_s: float) -> None:
        """Set the idle timeout that applies from now on."""
        self._deadline.allow(silence_s)

    def expect_end(self, within_s: float) -> None:
        """Read on for at most this long; see `Running.expect_end`."""
        self._drop_after_s = time.monotonic() + within_s

    def _bounded_pieces(self) -> Iterator[bytes]:
        left_bytes = self._output_bytes
        for piece in self._pieces():
            left_bytes -= len(piece)
            if left_bytes < 0:
                self._stop.set()
                self._close_link()
                raise AgentProtocolError(
                    self._name,
                    f"its answer is longer than {format_size(self._output_bytes)}",
                    hint="a start-up file of its shell may print too much; `edgeq deploy BUNDLE --to DEVICE` "
                    "renews the agent",
                )
            yield piece

    def ended(self) -> Ended:
        """Return how the command ended; see `Running.ended`."""
        self._release()
        status = self._exit_status()
        if self._sender is not None:
            self._sender.join(STATUS_WAIT_S)
        return Ended(
            exit_status=status,
            stderr=self._stderr.decode("utf-8", "replace").strip(),
            sent_bytes=self._sent_bytes,
        )

    @abstractmethod
    def _pieces(self) -> Iterator[bytes]:
        """Yield the output as it arrives, until its end; raise if the command failed."""

    @abstractmethod
    def _send(self, stdin: Iterable[bytes]) -> None:
        """Send the input; runs in the sending thread."""

    @abstractmethod
    def _exit_status(self) -> int | None:
        """Return the exit status; None when there is none."""

    def _release(self) -> None:
        """Stop sending; may be called more than once."""
        self._stop.set()

    def _start(self, stdin: Iterable[bytes]) -> None:
        self._sender = threading.Thread(
            target=self._send_all, args=(stdin,), name=f"edgeq-send-{self._name}", daemon=True
        )
        self._sender.start()

    def _send_all(self, stdin: Iterable[bytes]) -> None:
        try:
            self._send(stdin)
        except Exception as error:  # noqa: BLE001 - of the producer of the input; `_pieces` raises it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        # The error first: the reader looks for it when the connection is gone.
        self._send_error = error
        self._close_link()

    def _note_sent(self, size_bytes: int) -> None:
        self._sent_bytes += size_bytes
        self._deadline.moved()
        if self._on_sent is not None:
            self._on_sent(size_bytes)

    def _keep_stderr(self, piece: bytes) -> None:
        self._stderr = (self._stderr + piece)[-_STDERR_BYTES:]

    def _dropped(self) -> bool:
        """Return whether the rest of the output is dropped."""
        return self._drop_after_s is not None and time.monotonic() > self._drop_after_s

    def _check_deadline(self) -> None:
        if self._dropped():
            raise _EnoughOutput
        error = self._deadline.error()
        if error is not None:
            self.out_of_time = True
            self._stop.set()
            self._close_link()
            raise error

    def _refusal(self) -> TransportError:
        return TransportError(
            self._name,
            "its SSH server refuses to run a command",
            hint="is the account restricted to sftp or tunnels (ForceCommand, a nologin shell)?",
        )
