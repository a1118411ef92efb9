"""The clock: time since boot decides, the wall clock is only shown.

Devices without a battery clock start in 1970 and jump when the network tells the time; nothing here that is
decided by time may follow such a jump.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple

# Unlike CLOCK_MONOTONIC it counts on while the device sleeps. Not on every Unix.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Moment(NamedTuple):
    """A point in time of one boot; moments of different boots cannot be compared."""

    boot_id: str
    since_boot_ns: int


class Clock:
    """The real clock."""

    def boot_id(self) -> str:
        """Return the kernel's id of this boot."""
        return read_boot_id()

    def since_boot_ns(self) -> int:
        """Return the nanoseconds since the boot."""
        return int(time.clock_gettime(_SINCE_BOOT) * 1_000_000_000)

    def wall_ns(self) -> int:
        """Return what the device believes the time is."""
        return time.time_ns()


_active = Clock()


def read_boot_id(root: str = "/") -> str:
    """Return the kernel's id of this boot, or "unknown" where the system hides it."""
    try:
        with open(os.path.join(root, "proc/sys/kernel/random/boot_id"), "rb") as stream:
            return stream.read(100).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


@contextmanager
def use(other: Clock) -> Iterator[None]:
    """Let another clock tell the time (tests)."""
    global _active
    before, _active = _active, other
    try:
        yield
    finally:
        _active = before


def now() -> Moment:
    """Return this moment."""
    return Moment(_active.boot_id(), _active.since_boot_ns())


def wall_ns() -> int:
    """Return the wall clock's time, to be shown and never to be compared."""
    return _active.wall_ns()


def elapsed_ns(since: Moment, until: Moment) -> int | None:
    """Return the time between two moments; None when the device was restarted in between.

    A system may hide the boot's id ("unknown"); there only a clock that went back tells of the restart.
    """
    if since.boot_id != until.boot_id or until.since_boot_ns < since.since_boot_ns:
        return None
    return until.since_boot_ns - since.since_boot_ns
