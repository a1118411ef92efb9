"""The soak time of a release: decide from its counters whether to wait, commit or roll back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edgeq_agent.activation import counters
from edgeq_agent.activation.counters import ReleaseCounts
from edgeq_agent.activation.state_record import SOAKING, SoakPolicy, StateRecord
from edgeq_agent.storage import clock
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

MAX_S = 7 * 24 * 3600.0
# More crashes than this are a crash loop, whatever the failure limit is.
CRASH_LIMIT = 2

WAIT = "wait"
COMMIT = "commit"
ROLL_BACK = "back"
# A soak that was stored without its terms ends at once.
_NO_POLICY = SoakPolicy(0)


class SoakDecision(NamedTuple):
    """The decision about a soak.

    Attributes:
        action: wait, commit or roll back.
        left_ns: remaining soak time when nothing else happens.
        reason: why it is rolled back; else empty.
    """

    action: str
    left_ns: int
    reason: str


@dataclass(frozen=True)
class SoakStatus:
    """How far a soak is."""

    policy: SoakPolicy
    left_ns: int
    counts: ReleaseCounts

    def to_json(self) -> Json:
        """Return the status as a response has it."""
        return {
            "soak_s": self.policy.soak_ns / 1e9,
            "left_s": self.left_ns / 1e9,
            "failure_limit": self.policy.failure_limit,
            "counts": self.counts.to_json(),
        }


def decide(policy: SoakPolicy, began: clock.Moment, now: clock.Moment, counts: ReleaseCounts) -> SoakDecision:
    """Decide about a soak; pure."""
    elapsed_ns = clock.elapsed_ns(began, now)
    if elapsed_ns is None:
        return SoakDecision(ROLL_BACK, 0, "the device restarted during the soak")
    if counts.crashes > CRASH_LIMIT:
        return SoakDecision(ROLL_BACK, 0, f"a crash loop during the soak: {counts.crashes} crashes")
    if counts.failures > policy.failure_limit:
        reason = (
            f"{counts.failures} failures during the soak, at most {policy.failure_limit} are allowed: "
            f"{counts.errors} errors, {counts.deadline_misses} deadline misses, {counts.crashes} crashes"
        )
        return SoakDecision(ROLL_BACK, 0, reason)
    left_ns = policy.soak_ns - elapsed_ns
    return SoakDecision(WAIT, left_ns, "") if left_ns > 0 else SoakDecision(COMMIT, 0, "")


def check(home: Home, record: StateRecord) -> SoakDecision:
    """Decide about the soak of a model in the state `soaking`."""
    counts = counters.read(home, record.model, str(record.target))
    return decide(record.soak or _NO_POLICY, record.entered, clock.now(), counts)


def status(home: Home, record: StateRecord) -> SoakStatus | None:
    """Return how far the soak of a model is; None when it is not soaking."""
    if record.state != SOAKING:
        return None
    left_ns = max(0, check(home, record).left_ns)
    counts = counters.read(home, record.model, str(record.target))
    return SoakStatus(record.soak or _NO_POLICY, left_ns, counts)
