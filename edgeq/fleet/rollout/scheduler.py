"""Decide what a rollout does next: a pure function of its state, with the gates between stages."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.fleet.rollout.abort import RuleAction
from edgeq.fleet.rollout.events import (
    Aborted,
    Advanced,
    Done,
    Event,
    Paused,
    RolledBack,
    RollingBack,
    Soaking,
)
from edgeq.fleet.rollout.outcomes import Outcome
from edgeq.fleet.rollout.spec import OnAbort
from edgeq.fleet.rollout.state import Rollout, RolloutState

_STATE_OF = {
    "look": RolloutState.RUNNING,
    "deploy": RolloutState.RUNNING,
    "soak": RolloutState.SOAKING,
    "reconcile": RolloutState.ABORTED,
    "restore": RolloutState.ROLLING_BACK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Devices that must be processed before the next decision.

    Attributes:
        kind: `deploy`, `soak`, `reconcile` or `restore`.
    """

    kind: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of the rollout's state, to be journaled."""

    event: Event


class Stop:
    """The rollout is done, or needs a decision of the operator."""


def decide(rollout: Rollout) -> Work | Transition | Stop:
    """Return what comes next; the caller does it, journals the result, and calls again."""
    if rollout.state is RolloutState.RUNNING:
        return alarm(rollout) or _running(rollout)
    if rollout.state is RolloutState.SOAKING:
        return alarm(rollout) or _soaking(rollout)
    if rollout.state is RolloutState.ABORTED:
        return _aborted(rollout)
    if rollout.state is RolloutState.ROLLING_BACK:
        return _rolling_back(rollout)
    return Stop()


def alarm(rollout: Rollout) -> Transition | None:
    """Return the abort or pause that the abort rules require now, or None."""
    if rollout.state not in (RolloutState.RUNNING, RolloutState.SOAKING):
        return None
    verdict = rollout.spec.rules.judge(rollout.tally)
    if verdict.action is RuleAction.ABORT:
        return Transition(event=Aborted(reason=verdict.reason))
    if verdict.action is RuleAction.PAUSE:
        return Transition(event=Paused(reason=verdict.reason, gate=rollout.stage))
    return None


def may_start(rollout: Rollout, kind: str) -> bool:
    """Return whether one more device may be started now; checked before each one."""
    return rollout.state is _STATE_OF[kind] and alarm(rollout) is None


def to_restore(rollout: Rollout) -> tuple[str, ...]:
    """Return the devices that this rollout changed and that were not restored yet, the last one first."""
    names = rollout.spec.devices
    return tuple(
        name
        for name in reversed(names)
        if rollout.touched(name) and rollout.records[name].restored not in ("restored", "nothing")
    )


def _running(rollout: Rollout) -> Work | Transition:
    records, devices = rollout.records, rollout.spec.stages[rollout.stage].devices
    pending = tuple(name for name in devices if not records[name].attempted)
    if pending:
        return Work(kind="deploy", devices=pending)
    if any(not records[name].final for name in devices):
        return Transition(event=Soaking(stage=rollout.stage))
    return _gate(rollout)


def _soaking(rollout: Rollout) -> Work | Transition:
    devices = rollout.spec.stages[rollout.stage].devices
    pending = tuple(name for name in devices if not rollout.records[name].final)
    return Work(kind="soak", devices=pending) if pending else _gate(rollout)


def _gate(rollout: Rollout) -> Transition:
    """Return the next stage or a pause, when every device of the stage has an outcome and no rule fires."""
    stage = rollout.spec.stages[rollout.stage]
    problem = "" if rollout.accepted >= rollout.stage else _problem(rollout)
    if problem:
        reason = f"stage {rollout.stage + 1} ({stage.text}): {problem}"
        return Transition(event=Paused(reason=reason, gate=rollout.stage))
    if rollout.stage + 1 < len(rollout.spec.stages):
        return Transition(event=Advanced(stage=rollout.stage + 1))
    return Transition(event=Done())


def _problem(rollout: Rollout) -> str:
    # Earlier stages were checked when they ended; only the failures of this one are new.
    here = rollout.counts(rollout.stage)
    uncovered = [outcome for outcome in rollout.spec.rules.uncovered(rollout.tally) if outcome in here]
    if uncovered:
        counts = ", ".join(f"{here[outcome]} {outcome.value}" for outcome in uncovered)
        return f"{counts}, which no evaluated abort rule covers"
    if here and Outcome.SUCCEEDED not in here:
        return "none of its devices succeeded"
    return ""


def _aborted(rollout: Rollout) -> Work | Transition | Stop:
    # A dead controller may have started deploys whose results are unknown; their devices are queried first.
    unknown = tuple(name for name, one in rollout.records.items() if one.looked and not one.attempted)
    if unknown:
        return Work(kind="reconcile", devices=unknown)
    if rollout.spec.on_abort is OnAbort.ROLLBACK:
        return Transition(event=RollingBack(reason=rollout.reason))
    return Stop()


def _rolling_back(rollout: Rollout) -> Work | Transition:
    left = tuple(name for name in to_restore(rollout) if not rollout.records[name].restored)
    if left:
        return Work(kind="restore", devices=left)
    return Transition(event=RolledBack(reason=rollout.reason))
