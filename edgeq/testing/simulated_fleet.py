"""A simulated fleet for rollouts: thousands of devices with given behaviours, in virtual time."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from edgeq.errors import DeviceOutOfSpace, DeviceTimeout, HealthCheckFailed, LinkLost, Unreachable
from edgeq.fleet.rollout.outcomes import DeviceOutcome, Outcome, ServedRelease
from edgeq.fleet.rollout.protocols import NoAnswer


class Behaviour(StrEnum):
    """How a simulated device behaves."""

    GOOD = "good"
    GONE = "gone"  # nothing listens there
    SILENT = "silent"  # the connection opens but there is no response; the transport times out
    MUTE = "mute"  # the same, but the transport does not time out
    FLAPPING = "flapping"  # loses every second response, after doing what was requested
    LYING = "lying"  # reports that the release serves; later its status differs
    FAILING = "failing"  # the release fails its checks
    FULL = "full"  # no space
    CRASHING = "crashing"  # the release serves, and the device rolls it back half a minute later
    SLOW_SOAK = "slow-soak"  # its own soak never ends


ANSWER_S, DEPLOY_S, TIMEOUT_S, CRASH_AFTER_S = 0.2, 2.0, 15.0, 30.0


class VirtualTime:
    """Clock and pool of a simulation: a job runs when it is submitted, and ends after its virtual time."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._ends: list[tuple[float, int, str, Any]] = []
        self._next = 0
        self._spent_s = 0.0

    def now_s(self) -> float:
        """The virtual time."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds

    def spend(self, seconds: float) -> None:
        """Let virtual time pass inside a job."""
        self._spent_s += seconds

    def submit(self, key: str, job: Callable[[], Any], *, deadline_s: float) -> None:
        """Run a job; `wait` returns its result once its virtual time is over."""
        self._spent_s = 0.0
        value = job()
        if self._spent_s > deadline_s:
            value = NoAnswer()
        end_s = self._now_s + min(self._spent_s, deadline_s)
        heapq.heappush(self._ends, (end_s, self._next, key, value))
        self._next += 1

    def wait(self, timeout_s: float) -> list[tuple[str, Any]]:
        """Advance to the end of the next job, or to the timeout."""
        if not self._ends:
            return []
        if self._ends[0][0] > self._now_s + timeout_s:
            self._now_s += timeout_s
            return []
        self._now_s = max(self._now_s, self._ends[0][0])
        results = []
        while self._ends and self._ends[0][0] <= self._now_s:
            _, _, key, value = heapq.heappop(self._ends)
            results.append((key, value))
        return results

    def forget(self) -> None:
        """Discard pending results, as a dying controller does; the jobs' effects remain."""
        self._ends.clear()

    @property
    def busy(self) -> int:
        """How many jobs have not been returned by `wait`."""
        return len(self._ends)


class SimulatedFleet:
    """A deployer of simulated devices; it outlives the controllers that a test kills.

    Attributes:
        serving: the releases that each device has served, the newest last.
        calls: how often each method was called for each device.
        needless: the devices that were deployed to while they served the release already.
    """

    def __init__(
        self, behaviours: Mapping[str, Behaviour], *, release: str, before: str | None = "old-release"
    ) -> None:
        self.behaviours = dict(behaviours)
        self.release = release
        self.serving: dict[str, list[str]] = {name: [before] if before else [] for name in behaviours}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.needless: list[str] = []
        self.time = VirtualTime()
        self._since_s: dict[str, float] = {}

    @property
    def touched(self) -> set[str]:
        """The devices that received any call."""
        return {name for _, name in self.calls}

    def truth(self) -> dict[str, str | None]:
        """Return the release that each device serves now."""
        return {name: releases[-1] if releases else None for name, releases in self.serving.items()}

    def status(self, device: str) -> ServedRelease:
        """Return the release that the device serves."""
        self._reach("status", device)
        self._settle(device)
        self._answer(device)
        releases = self.serving[device]
        soaks = self.behaviours[device] is Behaviour.SLOW_SOAK and releases[-1:] == [self.release]
        return ServedRelease(
            release=releases[-1] if releases else None,
            previous=releases[-2] if len(releases) > 1 else None,
            state="soaking" if soaks else "committed",
        )

    def deploy(self, device: str) -> DeviceOutcome:
        """Let the release serve, as the device's behaviour permits."""
        self._reach("deploy", device)
        self.time.spend(DEPLOY_S)
        behaviour = self.behaviours[device]
        if behaviour is Behaviour.FULL:
            raise DeviceOutOfSpace(device, "not enough space on the device")
        if behaviour is Behaviour.FAILING:
            raise HealthCheckFailed(device, "golden outputs differ")
        if self.serving[device][-1:] == [self.release]:
            self.needless.append(device)
        else:
            self.serving[device].append(self.release)
            self._since_s[device] = self.time.now_s()
        self._answer(device)
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def soak(self, device: str) -> DeviceOutcome:
        """Return the state of the release's soak, as the device reports it."""
        serving = self.status(device)
        if serving.release != self.release:
            return DeviceOutcome(outcome=Outcome.ROLLED_BACK, reason=f"{device}: serves {serving.release}")
        done = Outcome.PENDING if serving.state == "soaking" else Outcome.SUCCEEDED
        return DeviceOutcome(outcome=done)

    def rollback(self, device: str) -> DeviceOutcome:
        """Let the previous release serve again."""
        self._reach("rollback", device)
        self.time.spend(DEPLOY_S)
        if self.serving[device][-1:] == [self.release]:
            self.serving[device].pop()
        self._answer(device)
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def _reach(self, verb: str, device: str) -> None:
        self.calls[verb, device] += 1
        behaviour = self.behaviours[device]
        if behaviour is Behaviour.GONE:
            raise Unreachable(device, "nothing answers")
        if behaviour is Behaviour.SILENT:
            self.time.spend(TIMEOUT_S)
            raise DeviceTimeout(device, f"no answer within {TIMEOUT_S:g} s")
        if behaviour is Behaviour.MUTE:
            self.time.spend(math.inf)
        self.time.spend(ANSWER_S)

    def _settle(self, device: str) -> None:
        behaviour, since_s = self.behaviours[device], self._since_s.get(device, math.inf)
        if behaviour is Behaviour.LYING or (
            behaviour is Behaviour.CRASHING and self.time.now_s() - since_s >= CRASH_AFTER_S
        ):
            self.serving[device] = [name for name in self.serving[device] if name != self.release]

    def _answer(self, device: str) -> None:
        if self.behaviours[device] is Behaviour.FLAPPING:
            calls = sum(self.calls[verb, device] for verb in ("status", "deploy", "rollback"))
            if calls % 2 == 0:
                raise LinkLost(device, "the connection was lost")
