"""What is done to one device, as calls of the deployer in and events of the journal out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeq.errors import EdgeqError, LinkLost
from edgeq.fleet.rollout.outcomes import DeviceOutcome, Outcome, Serving, outcome_of
from edgeq.fleet.rollout.protocols import Deployer
from edgeq.fleet.rollout.state import Event, Record

_GOOD = (Outcome.SUCCEEDED, Outcome.PENDING)


def look(deployer: Deployer, name: str, release: str) -> list[Event]:
    """Ask what serves there before anything is done; a device that serves the release is not deployed to."""
    try:
        serving = _status(deployer, name)
    except EdgeqError as error:
        return [ended(name, outcome_of(error), phase="look")]
    events: list[Event] = [{"event": "looked", "device": name, "before": serving.release}]
    if serving.release == release:
        events.append({"event": "deployed", "device": name, "changed": False})
    return events


def deploy(deployer: Deployer, name: str, release: str) -> list[Event]:
    """Bring the release there. Where the answer was lost, the device says what came of it."""
    result = _asked(deployer.deploy, name)
    if result.outcome in _GOOD or (result.uncertain and _serves(deployer, name, release)):
        return [{"event": "deployed", "device": name, "changed": True}]
    return [ended(name, result, phase="deploy")]


def soak(deployer: Deployer, name: str) -> DeviceOutcome:
    """Ask whether it still serves the release."""
    return _asked(deployer.soak, name)


def reconcile(deployer: Deployer, name: str, release: str) -> list[Event]:
    """Ask a device with which a controller that died had begun; nothing is done to it."""
    try:
        serving = _status(deployer, name)
    except EdgeqError as error:
        return [ended(name, outcome_of(error), phase="look")]
    kind = "deployed" if serving.release == release else "cleared"
    return [{"event": kind, "device": name}]


def restore(deployer: Deployer, name: str, record: Record, release: str) -> list[Event]:
    """Put back what served before this rollout, if it is this rollout's release that serves."""
    try:
        serving = _status(deployer, name)
    except EdgeqError as error:
        return [_restored(name, "failed", error.message)]
    if serving.release == record.before:
        return [_restored(name, "restored")]
    if serving.release != release:
        return [_restored(name, "nothing", f"serves {_short(serving.release)}, not this rollout's release")]
    problem = _no_way_back(serving, record)
    if problem:
        return [_restored(name, "failed", problem)]
    result = _asked(deployer.rollback, name)
    if result.outcome is Outcome.SUCCEEDED or (
        result.uncertain and _serves(deployer, name, serving.previous)
    ):
        return [_restored(name, "restored")]
    return [_restored(name, "failed", result.reason)]


def ended(name: str, result: DeviceOutcome, *, phase: str) -> Event:
    """Return the event of a device's outcome."""
    return {
        "event": "outcome",
        "device": name,
        "outcome": result.outcome.value,
        "phase": phase,
        "reason": result.reason,
        "code": result.code,
    }


def _no_way_back(serving: Serving, record: Record) -> str:
    if record.before is None:
        return "it is the first release of the model there; deploy another one instead"
    if serving.previous != record.before:
        return (
            f"a rollback there leads to {_short(serving.previous)}, "
            f"and {_short(record.before)} served before the rollout"
        )
    return ""


def _serves(deployer: Deployer, name: str, release: str | None) -> bool:
    try:
        return _status(deployer, name).release == release
    except EdgeqError:
        return False  # silent still: the outcome of the call stands


def _status(deployer: Deployer, name: str) -> Serving:
    # A connection that ends in the middle is a link that flaps, not yet a device that is silent; a question
    # changes nothing, and is asked once more. A deadline that passed is silence.
    try:
        return deployer.status(name)
    except LinkLost:
        return deployer.status(name)


def _asked(call: Callable[[str], DeviceOutcome], name: str) -> DeviceOutcome:
    try:
        return call(name)
    except EdgeqError as error:
        return outcome_of(error)


def _restored(name: str, result: str, reason: str = "") -> Event:
    event: dict[str, Any] = {"event": "restored", "device": name, "result": result, "reason": reason}
    return event


def _short(release: str | None) -> str:
    return release[:12] if release else "nothing"
