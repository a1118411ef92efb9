"""The soak: the verdict on a release that serves on trial: go on, commit, or back."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent.activation import counters, states
from edgeq_agent.calls import request
from edgeq_agent.storage import clock
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

MAX_S = 7 * 24 * 3600.0
FAILURE_LIMIT = 5
# More says that it does not run at all, whatever the limit of failures is.
CRASH_LIMIT = 2

WAIT = "wait"
COMMIT = "commit"
BACK = "back"


class Verdict(NamedTuple):
    """What a soak has come to.

    Attributes:
        left_ns: how long it still takes when nothing happens.
        reason: why it goes back.
    """

    what: str
    left_ns: int
    reason: str


def wanted(body: Json) -> Json:
    """Return the soak that a request asks for; an empty one commits at once.

    Raises:
        AgentError: EQ512, a field is not what it must be.
    """
    seconds = request.number(body, "soak_s", 0.0)
    limit = request.integer(body, "failure_limit", 0, 1 << 31, default=FAILURE_LIMIT)
    if seconds > MAX_S:
        raise request.bad("soak_s", f"seconds, at most {MAX_S:g}", seconds)
    return {"soak_ns": int(seconds * 1e9), "failure_limit": limit} if seconds else {}


def verdict(asked: Json, began: clock.Moment, now: clock.Moment, counts: Json) -> Verdict:
    """Return what a soak has come to. Pure: the same figures always give the same."""
    elapsed_ns = clock.elapsed_ns(began, now)
    if elapsed_ns is None:
        return Verdict(BACK, 0, "the device restarted during the soak")
    failed, limit = counters.failures(counts), int(asked.get("failure_limit", FAILURE_LIMIT))
    if int(counts["crashes"]) > CRASH_LIMIT:
        return Verdict(BACK, 0, f"a crash loop during the soak: {counts['crashes']} crashes")
    if failed > limit:
        told = ", ".join("{} {}".format(counts[name], name.replace("_", " ")) for name in counters.FAILURES)
        return Verdict(BACK, 0, f"{failed} failures during the soak, at most {limit} are allowed: {told}")
    left_ns = int(asked.get("soak_ns", 0)) - elapsed_ns
    return Verdict(WAIT, left_ns, "") if left_ns > 0 else Verdict(COMMIT, 0, "")


def of(home: Home, state: states.ModelState) -> Verdict:
    """Return what the soak that runs has come to."""
    counts = counters.read(home, state.model, str(state.target))
    return verdict(state.soak, state.moment, clock.now(), counts)


def told(home: Home, state: states.ModelState) -> Json | None:
    """Return what an answer says of a soak that runs; None when none does."""
    if state.state != states.SOAKING:
        return None
    return {
        "soak_s": state.soak.get("soak_ns", 0) / 1e9,
        "left_s": max(0, of(home, state).left_ns) / 1e9,
        "failure_limit": state.soak.get("failure_limit", FAILURE_LIMIT),
        "counts": counters.read(home, state.model, str(state.target)),
    }
