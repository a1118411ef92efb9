"""What can come of a device in a rollout: five ways to fail, told apart, and what counts as silence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeq.errors import DeviceTimeout, EdgeqError, LinkLost, TransportError, Unreachable


class Outcome(StrEnum):
    """What came of one device; everything but the first two is a failure of its own kind."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    UNREACHABLE = "unreachable"  # no connection, or one that was cut
    TIMED_OUT = "timed_out"  # a connection, and no answer within the deadline
    REFUSED = "refused"  # said no before anything changed: key, space, kind of device, busy
    FAILED = "failed"  # the release did not get through its checks there
    ROLLED_BACK = "rolled_back"  # it served, and the device went back to what served before


FAILURES = (
    Outcome.UNREACHABLE,
    Outcome.TIMED_OUT,
    Outcome.REFUSED,
    Outcome.FAILED,
    Outcome.ROLLED_BACK,
)
SILENCE = frozenset({Outcome.UNREACHABLE, Outcome.TIMED_OUT})

# What an abort rule can count.
CLASSES: dict[str, frozenset[Outcome]] = {
    **{outcome.value: frozenset({outcome}) for outcome in FAILURES},
    "silent": SILENCE,
    "any": frozenset(FAILURES),
}

# A "no" before anything changed, the device's own or (EQ103) the inventory's; every other code of a device
# is a failure on it.
_REFUSALS = frozenset({"EQ103", "EQ501", "EQ503", "EQ507", "EQ508", "EQ510", "EQ512"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a device says that it serves of one model.

    Attributes:
        release: the release that serves, or None.
        previous: the one that a rollback on the device leads to, or None.
        state: the state of the last activation: `committed`, `rolled_back`, `soaking`, ...
        reason: why it was rolled back, if it was.
    """

    release: str | None
    previous: str | None = None
    state: str = "none"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOutcome:
    """What one call to one device came to.

    Attributes:
        outcome: PENDING says that the device is still at it (it soaks by itself).
        reason: one line for people.
        code: the error's code, or empty.
        uncertain: the call may have taken effect although no answer came; the device has to be asked.
    """

    outcome: Outcome
    reason: str = ""
    code: str = ""
    uncertain: bool = False


def outcome_of(error: EdgeqError) -> DeviceOutcome:
    """Return what an error of a device or of the way to it means for a rollout."""
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
