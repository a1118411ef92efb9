"""What the runner needs from the world: devices, workers, time; a fleet's or a simulation's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgeq.fleet.rollout.outcomes import DeviceOutcome, Serving


class Deployer(Protocol):
    """Does things to devices by their names; any method may raise an EdgeqError instead of answering."""

    def status(self, device: str) -> Serving:
        """Ask what it serves; changes nothing."""

    def deploy(self, device: str) -> DeviceOutcome:
        """Bring the release there; SUCCEEDED and PENDING (it soaks by itself) say that it serves."""

    def soak(self, device: str) -> DeviceOutcome:
        """Ask whether the release still serves; PENDING: the device has not decided yet."""

    def rollback(self, device: str) -> DeviceOutcome:
        """Put back what served before, unless something else serves than the release."""


class Clock(Protocol):
    """Time that only goes forward."""

    def now_s(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Pool(Protocol):
    """Runs jobs beside each other."""

    def submit(self, key: str, job: Callable[[], Any], *, deadline_s: float) -> None:
        """Start a job; there is no other one with this key."""

    def wait(self, timeout_s: float) -> Sequence[tuple[str, Any]]:
        """Return what has ended by now, at the latest after the timeout: the job's value or `NoAnswer`.

        A job that raised raises here.
        """

    @property
    def busy(self) -> int:
        """How many jobs have not been returned by `wait`."""


class NoAnswer:
    """A job that did not end within its deadline; it was given up."""


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Seconds since boot or so."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
