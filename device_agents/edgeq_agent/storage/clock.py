"""The clock: decisions use the time since boot; the wall clock is only recorded and shown.

A device without a battery-backed clock boots in 1970 and jumps when it reaches a time server. No decision may
follow such a jump.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple

# CLOCK_BOOTTIME also counts the time that the device sleeps; not every Unix has it.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Moment(NamedTuple):
    """A point in time of one boot; moments of different boots cannot be compared."""

    boot_id: str
    since_boot_ns: int


# The kernel's answer of `adjtimex`: the clock is not synchronized.
_TIME_ERROR = 5
# A `struct timex` of zeros asks and changes nothing; it has about 200 bytes.
_TIMEX_BYTES = 512


class Clock:
    """The real clock."""

    def boot_id(self) -> str:
        """Return the kernel's id of this boot."""
        return read_boot_id()

    def since_boot_ns(self) -> int:
        """Return the nanoseconds since boot."""
        return int(time.clock_gettime(_SINCE_BOOT) * 1_000_000_000)

    def wall_ns(self) -> int:
        """Return the wall clock's time in nanoseconds since 1970; it may be wrong."""
        return time.time_ns()

    def synced(self) -> bool | None:
        """Return whether the kernel considers the wall clock set; None where it does not say."""
        try:
            import ctypes  # here, because some devices' Python has none

            answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        except (ImportError, OSError, AttributeError):
            return None
        return None if answer < 0 else answer != _TIME_ERROR


_active = Clock()


def read_boot_id(root: str = "/") -> str:
    """Return the kernel's id of this boot; "unknown" where the system hides it."""
    try:
        with open(os.path.join(root, "proc/sys/kernel/random/boot_id"), "rb") as stream:
            return stream.read(100).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


@contextmanager
def use(other: Clock) -> Iterator[None]:
    """Use another clock (for tests)."""
    global _active
    before, _active = _active, other
    try:
        yield
    finally:
        _active = before


def now() -> Moment:
    """Return the current moment."""
    return Moment(_active.boot_id(), _active.since_boot_ns())


def wall_ns() -> int:
    """Return the wall clock's time, for display only; never compare two of them."""
    return _active.wall_ns()


def synced() -> bool | None:
    """Return whether the wall clock was set by a time server or a user; None where that is not known."""
    return _active.synced()


def elapsed_ns(since: Moment, until: Moment) -> int | None:
    """Return the time between two moments; None when the device restarted in between.

    Where the system hides the boot's id ("unknown"), a restart shows only as a clock that went back.
    """
    if since.boot_id != until.boot_id or until.since_boot_ns < since.since_boot_ns:
        return None
    return until.since_boot_ns - since.since_boot_ns
