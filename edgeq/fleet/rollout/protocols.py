"""Interfaces that the runner needs: a deployer and a pool, of a real fleet or of a simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgeq.fleet.rollout.outcomes import DeviceOutcome, ServedRelease


class Deployer(Protocol):
    """Acts on devices by name; any method may raise an EdgeqError instead of returning."""

    def status(self, device: str) -> ServedRelease:
        """Return what it serves; changes nothing."""

    def deploy(self, device: str) -> DeviceOutcome:
        """Deploy the release; SUCCEEDED and PENDING (it is soaking) mean that it serves."""

    def soak(self, device: str) -> DeviceOutcome:
        """Return whether the release still serves; PENDING: the device has not decided yet."""

    def rollback(self, device: str) -> DeviceOutcome:
        """Restore the release that served before, unless another one than the rollout's serves."""


class Pool(Protocol):
    """Runs jobs concurrently."""

    def submit(self, key: str, job: Callable[[], Any], *, deadline_s: float) -> None:
        """Start a job; no other running job has this key."""

    def wait(self, timeout_s: float) -> Sequence[tuple[str, Any]]:
        """Return the jobs that ended, waiting up to the timeout: key, and the job's value or `NoAnswer`.

        An exception of a job is raised here.
        """

    @property
    def busy(self) -> int:
        """The number of jobs that `wait` has not returned yet."""


class NoAnswer:
    """The value of a job that missed its deadline and was abandoned."""
