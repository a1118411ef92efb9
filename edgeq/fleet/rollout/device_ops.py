"""Operations on one device: call the deployer, return the events for the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeq.crash import unexpected
from edgeq.errors import EdgeqError, LinkLost
from edgeq.fleet.rollout.events import Cleared, Deployed, Ended, Event, Looked, Restored
from edgeq.fleet.rollout.outcomes import DeviceOutcome, Outcome, ServedRelease, outcome_of
from edgeq.fleet.rollout.protocols import Deployer
from edgeq.fleet.rollout.state import DeviceRecord

T = TypeVar("T")

_GOOD = (Outcome.SUCCEEDED, Outcome.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolatedDeployer:
    """A deployer whose unexpected exceptions are errors of their device, so that the rollout goes on."""

    deployer: Deployer

    def status(self, device: str) -> ServedRelease:
        """See `Deployer.status`."""
        return _isolated(self.deployer.status, device)

    def deploy(self, device: str) -> DeviceOutcome:
        """See `Deployer.deploy`."""
        return _isolated(self.deployer.deploy, device)

    def soak(self, device: str) -> DeviceOutcome:
        """See `Deployer.soak`."""
        return _isolated(self.deployer.soak, device)

    def rollback(self, device: str) -> DeviceOutcome:
        """See `Deployer.rollback`."""
        return _isolated(self.deployer.rollback, device)


def _isolated(call: Callable[[str], T], device: str) -> T:
    try:
        return call(device)
    except EdgeqError:
        raise
    except Exception as error:
        raise unexpected(error, subject=device, device=device) from error


def look(deployer: Deployer, name: str, release: str) -> list[Event]:
    """Read what the device serves before changing it; a device that serves the release needs no deploy."""
    try:
        serving = _status(deployer, name)
    except EdgeqError as error:
        return [ended(name, outcome_of(error), phase="look")]
    events: list[Event] = [Looked(device=name, before=serving.release)]
    if serving.release == release:
        events.append(Deployed(device=name, changed=False))
    return events


def deploy(deployer: Deployer, name: str, release: str) -> list[Event]:
    """Deploy the release. If the response was lost, the device's status decides."""
    result = _outcome(deployer.deploy, name)
    if result.outcome in _GOOD or (result.uncertain and _serves(deployer, name, release)):
        return [Deployed(device=name, changed=True)]
    return [ended(name, result, phase="deploy")]


def soak(deployer: Deployer, name: str) -> DeviceOutcome:
    """Return whether the device still serves the release."""
    return _outcome(deployer.soak, name)


def reconcile(deployer: Deployer, name: str, release: str) -> list[Event]:
    """Read the status of a device on which a dead controller had begun; change nothing."""
    try:
        serving = _status(deployer, name)
    except EdgeqError as error:
        return [ended(name, outcome_of(error), phase="look")]
    return [Deployed(device=name) if serving.release == release else Cleared(device=name)]


def restore(deployer: Deployer, name: str, record: DeviceRecord, release: str) -> list[Event]:
    """Restore the release that served before this rollout, if this rollout's release serves."""
    try:
        serving = _status(deployer, name)
    except EdgeqError as error:
        return [_restored(name, "failed", error.message)]
    if serving.release == record.before:
        return [_restored(name, "restored")]
    if serving.release != release:
        return [_restored(name, "nothing", f"serves {_short(serving.release)}, not this rollout's release")]
    problem = _restore_problem(serving, record)
    if problem:
        return [_restored(name, "failed", problem)]
    result = _outcome(deployer.rollback, name)
    if result.outcome is Outcome.SUCCEEDED or (
        result.uncertain and _serves(deployer, name, serving.previous)
    ):
        return [_restored(name, "restored")]
    return [_restored(name, "failed", result.reason)]


def ended(name: str, result: DeviceOutcome, *, phase: str) -> Event:
    """Return the event of a device's outcome."""
    return Ended(device=name, outcome=result.outcome, phase=phase, reason=result.reason, code=result.code)


def _restore_problem(serving: ServedRelease, record: DeviceRecord) -> str:
    if record.before is None:
        return "it is the first release of the model on the device; deploy another one instead"
    if serving.previous != record.before:
        return (
            f"a rollback on the device returns to {_short(serving.previous)}, "
            f"but {_short(record.before)} served before the rollout"
        )
    return ""


def _serves(deployer: Deployer, name: str, release: str | None) -> bool:
    try:
        return _status(deployer, name).release == release
    except EdgeqError:
        return False  # still silent: the outcome of the call stands


def _status(deployer: Deployer, name: str) -> ServedRelease:
    # A lost connection may be a flapping link, not a silent device. Reading the status changes nothing, so it
    # is repeated once. A missed deadline counts as silence.
    try:
        return deployer.status(name)
    except LinkLost:
        return deployer.status(name)


def _outcome(call: Callable[[str], DeviceOutcome], name: str) -> DeviceOutcome:
    try:
        return call(name)
    except EdgeqError as error:
        return outcome_of(error)


def _restored(name: str, result: str, reason: str = "") -> Event:
    return Restored(device=name, result=result, reason=reason)


def _short(release: str | None) -> str:
    return release[:12] if release else "nothing"
