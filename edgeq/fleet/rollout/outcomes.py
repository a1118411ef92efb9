"""Outcomes of a device in a rollout: five kinds of failure, and which of them count as silence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeq.errors import DeviceTimeout, EdgeqError, LinkLost, TransportError, Unreachable


class Outcome(StrEnum):
    """The outcome of one device; all but the first two are failures."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    UNREACHABLE = "unreachable"  # no connection, or it was cut
    TIMED_OUT = "timed_out"  # connected, but no response within the deadline
    REFUSED = "refused"  # refused before anything changed: key, space, kind of device, busy
    FAILED = "failed"  # the release failed its checks on the device
    ROLLED_BACK = "rolled_back"  # it served, then the device returned to the release before


FAILURES = (
    Outcome.UNREACHABLE,
    Outcome.TIMED_OUT,
    Outcome.REFUSED,
    Outcome.FAILED,
    Outcome.ROLLED_BACK,
)
SILENCE = frozenset({Outcome.UNREACHABLE, Outcome.TIMED_OUT})

# The classes that an abort rule can count.
CLASSES: dict[str, frozenset[Outcome]] = {
    **{outcome.value: frozenset({outcome}) for outcome in FAILURES},
    "silent": SILENCE,
    "any": frozenset(FAILURES),
}

# Errors before anything changed, of the device or (EQ103) of the inventory; every other error code of a
# device counts as a failure.
_REFUSALS = frozenset({"EQ103", "EQ501", "EQ503", "EQ507", "EQ508", "EQ510", "EQ512"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRelease:
    """What a device serves of one model, by its own status.

    Attributes:
        release: the current release, or None.
        previous: the release that a rollback returns to, or None.
        state: of the last activation: `committed`, `rolled_back`, `soaking`, ...
        reason: why it was rolled back, if it was.
    """

    release: str | None
    previous: str | None = None
    state: str = "none"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOutcome:
    """The outcome of one call to one device.

    Attributes:
        outcome: PENDING means that the device is not done yet: it is soaking.
        reason: one line of text.
        code: the error's code, or empty.
        uncertain: the call may have taken effect although no response came; the device's status decides.
    """

    outcome: Outcome
    reason: str = ""
    code: str = ""
    uncertain: bool = False


def outcome_of(error: EdgeqError) -> DeviceOutcome:
    """Return the outcome for an error of a device or of its connection."""
    return DeviceOutcome(
        outcome=_class_of(error),
        reason=error.message,
        code=error.reported_code,
        uncertain=isinstance(error, (DeviceTimeout, LinkLost)),
    )


def _class_of(error: EdgeqError) -> Outcome:
    if isinstance(error, (Unreachable, LinkLost)):
        return Outcome.UNREACHABLE
    if isinstance(error, DeviceTimeout):
        return Outcome.TIMED_OUT
    if isinstance(error, TransportError) or error.reported_code in _REFUSALS:
        return Outcome.REFUSED
    return Outcome.FAILED
