"""A rollout for people and for programs: counts a stage, a line a failing device, the error it ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from edgeq.errors import EdgeqError, RolloutAborted, RolloutPaused, SomeDevicesFailed
from edgeq.fleet.rollout.outcomes import FAILURES, Outcome
from edgeq.fleet.rollout.state import Rollout, State


def to_dict(rollout: Rollout) -> dict[str, Any]:
    """Return the body of `edgeq.rollout/1`."""
    terms = rollout.terms
    stages = [
        {
            "stage": stage.text,
            "devices": len(stage.devices),
            "counts": {outcome.value: count for outcome, count in rollout.counts(index).items()},
        }
        for index, stage in enumerate(terms.stages)
    ]
    head = {key: value for key, value in terms.to_dict().items() if key != "stages"}
    return {
        **head,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "stage": rollout.stage,
        "stages": stages,
        "counts": {outcome.value: count for outcome, count in totals(rollout).items()},
        "devices": [
            _device(rollout, index, name)
            for index, stage in enumerate(terms.stages)
            for name in stage.devices
        ],
    }


def summary(rollout: Rollout) -> dict[str, Any]:
    """Return one entry of `edgeq.rollouts/1`."""
    terms = rollout.terms
    return {
        "rollout": terms.rollout,
        "model": terms.model,
        "release": terms.release,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "stage": rollout.stage,
        "stages": len(terms.stages),
        "devices": len(terms.devices),
        "counts": {outcome.value: count for outcome, count in totals(rollout).items()},
    }


def totals(rollout: Rollout) -> dict[Outcome, int]:
    """Return how many devices have each outcome."""
    found = Counter(record.outcome for record in rollout.records.values())
    return {outcome: found[outcome] for outcome in Outcome if found[outcome]}


def lines(rollout: Rollout) -> Iterator[str]:
    """Yield a line a stage, one a failing device, and the last word."""
    stages = rollout.terms.stages
    for index in range(len(stages)):
        yield stage_line(rollout, index)
    for name, record in rollout.records.items():
        if record.outcome in FAILURES:
            yield f"{name}: {record.outcome.value}, {_bare(name, record.reason)}"
        if record.restored == "failed":
            yield f"{name}: not rolled back, {_bare(name, record.restored_reason)}"
    why = f", {rollout.reason}" if rollout.reason else ""
    counts = f"{_counts(totals(rollout))}{_restored(rollout)}"
    yield f"{rollout.terms.rollout}: {rollout.state.value}{why}; {counts}"


def _bare(name: str, reason: str | None) -> str:
    # An error names its device already; the line does so as well.
    return (reason or "no reason given").removeprefix(f"{name}: ")


def stage_line(rollout: Rollout, index: int) -> str:
    """Return the line of one stage."""
    stage = rollout.terms.stages[index]
    count = len(stage.devices)
    head = f"stage {index + 1}/{len(rollout.terms.stages)} {stage.text}"
    if not count:
        return f"{head}: no more devices than before"
    return f"{head}: {count} device{'s' if count > 1 else ''}: {_counts(rollout.counts(index))}"


def error_of(rollout: Rollout) -> EdgeqError | None:
    """Return what a command ends with that drove the rollout as far as it goes; None: all succeeded."""
    name, counts = rollout.terms.rollout, totals(rollout)
    failed = sum(counts.get(outcome, 0) for outcome in FAILURES)
    if rollout.aborted:
        attempted = f"{rollout.tally.attempted} of {len(rollout.terms.devices)} devices"
        after = "" if rollout.state is State.ABORTED else f", then {rollout.state.value}"
        problem = f"aborted after {attempted}{after}: {rollout.reason}"
        hint = f"`edgeq rollout rollback {name}` puts the changed ones back"
        return RolloutAborted(name, problem, hint=hint if rollout.state is State.ABORTED else None)
    if rollout.state is State.PAUSED:
        accept = f", `edgeq rollout resume {name} --accept` goes on without them"
        hint = f"`edgeq rollout resume {name} --retry-failed` tries the failed again{accept}"
        if rollout.gate is None:
            hint = f"`edgeq rollout resume {name}` goes on"
        return RolloutPaused(name, f"paused: {rollout.reason}", hint=hint)
    if rollout.state is State.DONE and failed:
        problem = f"{failed} of {len(rollout.terms.devices)} devices failed: {_counts(counts)}"
        hint = f"`edgeq rollout resume {name} --retry-failed` tries them again"
        return SomeDevicesFailed(name, problem, hint=hint)
    return None


def not_restored(rollout: Rollout) -> EdgeqError | None:
    """Return the error for devices that a rollback could not put back, or None."""
    failed = [name for name, record in rollout.records.items() if record.restored == "failed"]
    if not failed or rollout.state is not State.ROLLED_BACK:
        return None
    name = rollout.terms.rollout
    names = ", ".join(failed[:10]) + (", ..." if len(failed) > 10 else "")
    return SomeDevicesFailed(
        name,
        f"not put back on {len(failed)} of {len(rollout.records)} devices: {names}",
        hint=f"`edgeq rollout rollback {name}` tries them again",
    )


def _device(rollout: Rollout, stage: int, name: str) -> dict[str, Any]:
    record = rollout.records[name]
    return {
        "device": name,
        "stage": stage,
        "outcome": record.outcome.value,
        "deployed": record.deployed,
        "touched": rollout.touched(name),
        "before": record.before,
        "tries": record.tries,
        "reason": record.reason or None,
        "code": record.code or None,
        "restored": record.restored or None,
        "restored_reason": record.restored_reason or None,
    }


def _counts(counts: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items())


def _restored(rollout: Rollout) -> str:
    found = Counter(record.restored for record in rollout.records.values() if record.restored)
    words = {"restored": "put back", "nothing": "left as they are", "failed": "not put back"}
    text = ", ".join(f"{found[key]} {word}" for key, word in words.items() if found[key])
    return f"; {text}" if text else ""
