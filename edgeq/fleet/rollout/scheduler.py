"""What a rollout does next, as a pure function of its state: the gates between stages are here."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.fleet.rollout.abort import Finding
from edgeq.fleet.rollout.outcomes import Outcome
from edgeq.fleet.rollout.spec import OnAbort
from edgeq.fleet.rollout.state import Event, Rollout, State

_STATE_OF = {
    "look": State.RUNNING,
    "deploy": State.RUNNING,
    "soak": State.SOAKING,
    "reconcile": State.ABORTED,
    "restore": State.ROLLING_BACK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Devices that have to be worked on before anything can be decided.

    Attributes:
        kind: `deploy`, `soak`, `reconcile` or `restore`.
    """

    kind: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change of the rollout's own state, to be journaled."""

    event: Event


class Stop:
    """Nothing is left to do without somebody's word."""


def decide(rollout: Rollout) -> Work | Step | Stop:
    """Return the next thing; the caller does it, appends what came of it, and asks again."""
    if rollout.state is State.RUNNING:
        return alarm(rollout) or _running(rollout)
    if rollout.state is State.SOAKING:
        return alarm(rollout) or _soaking(rollout)
    if rollout.state is State.ABORTED:
        return _aborted(rollout)
    if rollout.state is State.ROLLING_BACK:
        return _rolling_back(rollout)
    return Stop()


def alarm(rollout: Rollout) -> Step | None:
    """Return the abort or the pause that the abort rules ask for now."""
    if rollout.state not in (State.RUNNING, State.SOAKING):
        return None
    verdict = rollout.terms.rules.judge(rollout.tally)
    if verdict.finding is Finding.ABORT:
        return _step("aborted", reason=verdict.reason)
    if verdict.finding is Finding.PAUSE:
        return _step("paused", reason=verdict.reason, gate=rollout.stage)
    return None


def may_start(rollout: Rollout, kind: str) -> bool:
    """Return whether one more device may be worked on now: asked before each, not only at a stage's end."""
    return rollout.state is _STATE_OF[kind] and alarm(rollout) is None


def to_restore(rollout: Rollout) -> tuple[str, ...]:
    """Return the devices that this rollout changed and that were not put back yet, the last one first."""
    names = rollout.terms.devices
    return tuple(
        name
        for name in reversed(names)
        if rollout.touched(name) and rollout.records[name].restored not in ("restored", "nothing")
    )


def _running(rollout: Rollout) -> Work | Step:
    records, devices = rollout.records, rollout.terms.stages[rollout.stage].devices
    pending = tuple(name for name in devices if not records[name].attempted)
    if pending:
        return Work(kind="deploy", devices=pending)
    if any(not records[name].final for name in devices):
        return _step("soaking", stage=rollout.stage)
    return _gate(rollout)


def _soaking(rollout: Rollout) -> Work | Step:
    devices = rollout.terms.stages[rollout.stage].devices
    pending = tuple(name for name in devices if not rollout.records[name].final)
    return Work(kind="soak", devices=pending) if pending else _gate(rollout)


def _gate(rollout: Rollout) -> Step:
    """Every device of the stage has an outcome, and no rule fires; say whether that is enough to go on."""
    stage = rollout.terms.stages[rollout.stage]
    problem = "" if rollout.accepted >= rollout.stage else _problem(rollout)
    if problem:
        reason = f"stage {rollout.stage + 1} ({stage.text}): {problem}"
        return _step("paused", reason=reason, gate=rollout.stage)
    if rollout.stage + 1 < len(rollout.terms.stages):
        return _step("advanced", stage=rollout.stage + 1)
    return _step("done")


def _problem(rollout: Rollout) -> str:
    # The stages before were judged at their own ends; here only what this one added is new.
    here = rollout.counts(rollout.stage)
    uncovered = [outcome for outcome in rollout.terms.rules.uncovered(rollout.tally) if outcome in here]
    if uncovered:
        counts = ", ".join(f"{here[outcome]} {outcome.value}" for outcome in uncovered)
        return f"{counts}, and no abort rule that could be evaluated allows for it"
    if here and Outcome.SUCCEEDED not in here:
        return "none of its devices succeeded"
    return ""


def _aborted(rollout: Rollout) -> Work | Step | Stop:
    # A controller that died may have begun with devices whose answer nobody heard: they are asked, no more.
    unknown = tuple(name for name, one in rollout.records.items() if one.looked and not one.attempted)
    if unknown:
        return Work(kind="reconcile", devices=unknown)
    if rollout.terms.on_abort is OnAbort.ROLLBACK:
        return _step("rolling_back", reason=rollout.reason)
    return Stop()


def _rolling_back(rollout: Rollout) -> Work | Step:
    left = tuple(name for name in to_restore(rollout) if not rollout.records[name].restored)
    return Work(kind="restore", devices=left) if left else _step("rolled_back", reason=rollout.reason)


def _step(event: str, **details: object) -> Step:
    return Step(event={"event": event, **details})
