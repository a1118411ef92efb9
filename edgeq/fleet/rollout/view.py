"""Present a rollout: as JSON, as lines of text, and as the error that a command ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from edgeq.errors import EdgeqError, RolloutAborted, RolloutPaused, SomeDevicesFailed
from edgeq.fleet.rollout.outcomes import FAILURES, Outcome
from edgeq.fleet.rollout.state import Rollout, RolloutState


def to_dict(rollout: Rollout) -> dict[str, Any]:
    """Return the body of `edgeq.rollout/1`."""
    spec = rollout.spec
    stages = [
        {
            "stage": stage.text,
            "devices": len(stage.devices),
            "counts": {outcome.value: count for outcome, count in rollout.counts(index).items()},
        }
        for index, stage in enumerate(spec.stages)
    ]
    head = {key: value for key, value in spec.to_dict().items() if key != "stages"}
    return {
        **head,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "stage": rollout.stage,
        "stages": stages,
        "counts": {outcome.value: count for outcome, count in totals(rollout).items()},
        "devices": [
            _device(rollout, index, name) for index, stage in enumerate(spec.stages) for name in stage.devices
        ],
    }


def summary(rollout: Rollout) -> dict[str, Any]:
    """Return one entry of `edgeq.rollouts/1`."""
    spec = rollout.spec
    return {
        "rollout": spec.rollout,
        "model": spec.model,
        "release": spec.release,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "stage": rollout.stage,
        "stages": len(spec.stages),
        "devices": len(spec.devices),
        "counts": {outcome.value: count for outcome, count in totals(rollout).items()},
    }


def totals(rollout: Rollout) -> dict[Outcome, int]:
    """Return how many devices have each outcome."""
    counts = Counter(record.outcome for record in rollout.records.values())
    return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}


def lines(rollout: Rollout) -> Iterator[str]:
    """Yield a line per stage, one per failed device, and the state."""
    stages = rollout.spec.stages
    for index in range(len(stages)):
        yield stage_line(rollout, index)
    for name, record in rollout.records.items():
        if record.outcome in FAILURES:
            yield f"{name}: {record.outcome.value}, {_without_name(name, record.reason)}"
        if record.restored == "failed":
            yield f"{name}: not restored, {_without_name(name, record.restored_reason)}"
    why = f", {rollout.reason}" if rollout.reason else ""
    counts = f"{_counts(totals(rollout))}{_restored(rollout)}"
    yield f"{rollout.spec.rollout}: {rollout.state.value}{why}; {counts}"


def _without_name(name: str, reason: str | None) -> str:
    # The reason starts with the device's name, and so does the line.
    return (reason or "no reason given").removeprefix(f"{name}: ")


def stage_line(rollout: Rollout, index: int) -> str:
    """Return the line of one stage."""
    stage = rollout.spec.stages[index]
    count = len(stage.devices)
    head = f"stage {index + 1}/{len(rollout.spec.stages)} ({stage.text})"
    if not count:
        return f"{head} adds no device"
    return f"{head}, {count} device{'s' if count > 1 else ''}: {_counts(rollout.counts(index))}"


def error_of(rollout: Rollout) -> EdgeqError | None:
    """Return the error that a command ends with after driving a rollout; None if all devices succeeded."""
    name, counts = rollout.spec.rollout, totals(rollout)
    failed = sum(counts.get(outcome, 0) for outcome in FAILURES)
    if rollout.aborted:
        attempted = f"{rollout.tally.attempted} of {len(rollout.spec.devices)} devices"
        after = "" if rollout.state is RolloutState.ABORTED else f", then {rollout.state.value}"
        problem = f"aborted after {attempted}{after}: {rollout.reason}"
        hint = (
            f"`edgeq rollout resume {name} --retry-failed` tries the failed devices again and continues; "
            f"`edgeq rollout rollback {name}` restores the changed devices"
        )
        if rollout.state is not RolloutState.ABORTED:
            hint = (
                f"`edgeq rollout show {name}` has the reasons; then start a new rollout with "
                "`edgeq deploy BUNDLE --to DEVICE --stages STAGES`"
            )
        return RolloutAborted(name, problem, hint=hint)
    if rollout.state is RolloutState.PAUSED:
        hint = (
            f"retry the failed devices with `edgeq rollout resume {name} --retry-failed`; "
            f"or continue without them with `edgeq rollout resume {name} --accept`"
        )
        if rollout.gate is None:
            hint = f"continue with `edgeq rollout resume {name}`"
        return RolloutPaused(name, f"paused: {rollout.reason}", hint=hint)
    if rollout.state is RolloutState.DONE and failed:
        problem = f"{failed} of {len(rollout.spec.devices)} devices failed: {_counts(counts)}"
        hint = f"retry them with `edgeq rollout resume {name} --retry-failed`"
        return SomeDevicesFailed(name, problem, hint=hint)
    return None


def not_restored(rollout: Rollout) -> EdgeqError | None:
    """Return the error for devices that a rollback could not restore, or None."""
    failed = [name for name, record in rollout.records.items() if record.restored == "failed"]
    if not failed or rollout.state is not RolloutState.ROLLED_BACK:
        return None
    name = rollout.spec.rollout
    names = ", ".join(failed[:10]) + (", ..." if len(failed) > 10 else "")
    return SomeDevicesFailed(
        name,
        f"not restored: {len(failed)} of {len(rollout.records)} devices: {names}",
        hint=f"try again with `edgeq rollout rollback {name}`",
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
    counts = Counter(record.restored for record in rollout.records.values() if record.restored)
    words = {"restored": "restored", "nothing": "left unchanged", "failed": "not restored"}
    text = ", ".join(f"{counts[key]} {word}" for key, word in words.items() if counts[key])
    return f"; {text}" if text else ""
