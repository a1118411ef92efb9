"""Standard streams of the process: usable where they were closed, with an error of its own for results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class ResultsRefused(Exception):
    """Standard output cannot be written; `error` says why. No OSError: click handles those too."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Results:
    """Standard output whose failures are ResultsRefused; everything else is as of the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise ResultsRefused(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise ResultsRefused(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Let a command use the standard streams for the duration of the `with` block.

    Closed streams are opened on /dev/null: otherwise the next file that the process opens becomes standard
    output (`edgeq ... >&-`). What no one can read is discarded, and the command does its work.

    Raises:
        ResultsRefused: from within the block, where standard output is written.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _point_at_null(number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - open as long as the process
    stream = sys.stdout
    sys.stdout = cast(TextIO, _Results(stream))
    try:
        yield
    finally:
        sys.stdout = stream


def discard_results() -> None:
    """Discard what was not written yet, or Python would report the failure again at exit."""
    _point_at_null(sys.stdout.fileno())


def diagnose(line: str) -> None:
    """Write a line on standard error. If its reader is gone, discard what comes later.

    A command that changes devices must not end between two of them because no one reads its progress.
    """
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        _point_at_null(sys.stderr.fileno())


def _point_at_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
