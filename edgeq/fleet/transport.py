"""The port to a device: run one command, bytes in, lines out, bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a command may take.

    Attributes:
        first_s: silence allowed before its first output.
        silence_s: silence allowed afterwards; bytes that move in either direction end a silence.
        total_s: the whole command.
    """

    first_s: float
    silence_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_status: as the device told it; None when the connection ended first.
        stderr: the last of what it wrote there, decoded.
        sent_bytes: how much of its standard input it was given.
    """

    exit_status: int | None
    stderr: str
    sent_bytes: int


class Running(Protocol):
    """A command under way."""

    def lines(self) -> Iterator[bytes]:
        """Yield its output line by line until it ends.

        Raises:
            DeviceTimeout: a limit was passed; the connection is closed then.
            LinkLost: the connection ended in the middle.
        """

    def ended(self) -> Ended:
        """Return how it ended; call it after the last line."""


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
        """Start a command with the given standard input, which is streamed while output is read.

        Args:
            argv: the command; every word is quoted, none is read by the device's shell.
            on_sent: called with the size of each piece that went out, from another thread.
        """

    def close(self) -> None:
        """End the connection."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
