"""The interface to a device: run one command with bytes in, lines out, and time limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

# How long to wait for the server to close the session of an earlier command, when it refuses another.
SESSION_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a command; the times are in seconds.

    Attributes:
        first_s: idle timeout before its first output.
        silence_s: idle timeout afterwards; bytes that move in either direction restart it.
        total_s: timeout of the whole command.
        output_bytes: the largest output, in bytes; a command that writes more is ended.
    """

    first_s: float
    silence_s: float
    total_s: float
    output_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_status: None when the connection ended first, or a signal ended the command.
        stderr: the last of its standard error, decoded.
        sent_bytes: how much of its standard input was sent.
    """

    exit_status: int | None
    stderr: str
    sent_bytes: int


class Running(Protocol):
    """A running command.

    Attributes:
        out_of_time: whether one of its own time limits has passed, and not one of the connection.
    """

    out_of_time: bool

    def lines(self) -> Iterator[bytes]:
        """Yield its output line by line until it ends.

        Raises:
            DeviceTimeout: a time limit has passed; the connection is closed.
            AgentProtocolError: it wrote more than its limit; the connection is closed.
            LinkLost: the connection was lost.
        """

    def allow_silence(self, silence_s: float) -> None:
        """Set the idle timeout that applies from now on."""

    def expect_end(self, within_s: float) -> None:
        """Read on for at most this long: then `lines` ends, and the rest of the output is dropped.

        A process in the background may hold the output for as long as it runs.
        """

    def ended(self) -> Ended:
        """Return how it ended; to be called after the last line."""


class Transport(Protocol):
    """An open connection to one device."""

    def run(
        self,
        argv: list[str],
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None = None,
    ) -> Running:
        """Start a command; its standard input is streamed while its output is read.

        Args:
            argv: the command; every word is quoted, so that the device's shell interprets none.
            on_sent: called with the size of each piece sent, from another thread.
        """

    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ClosedAtExit(ABC):
    """A transport whose `with` block closes it."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
