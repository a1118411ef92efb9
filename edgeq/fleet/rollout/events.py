"""Events of a rollout: what the controller writes into the journal, and what its state is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from edgeq.fleet.rollout.outcomes import Outcome

REQUESTED = "requested by the operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a rollout.

    Attributes:
        kind: its name in the journal.
        optional: fields that the journal leaves out when they are None.
    """

    kind: ClassVar[str]
    optional: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the event as a line of the journal, without what the journal adds."""
        fields = asdict(self)
        kept = {
            name: value for name, value in fields.items() if value is not None or name not in self.optional
        }
        return {"event": self.kind, **kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent(Event):
    """Something that happened to one device."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked(DeviceEvent):
    """A device's status was read; `before` is the release that serves, or None."""

    kind: ClassVar[str] = "looked"

    before: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed(DeviceEvent):
    """The release serves; `changed` says whether a deploy did it, and is None where that is not known."""

    kind: ClassVar[str] = "deployed"
    optional: ClassVar[tuple[str, ...]] = ("changed",)

    changed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared(DeviceEvent):
    """A dead controller had begun with the device, and did not change it."""

    kind: ClassVar[str] = "cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(DeviceEvent):
    """A device has its outcome; `phase` is what was done when it got it."""

    kind: ClassVar[str] = "outcome"
    optional: ClassVar[tuple[str, ...]] = ("phase",)

    outcome: Outcome
    phase: str | None = None
    reason: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(DeviceEvent):
    """What the rollback of the rollout did; `result` as in `DeviceRecord.restored`."""

    kind: ClassVar[str] = "restored"

    result: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaking(Event):
    """The soak of a stage begins."""

    kind: ClassVar[str] = "soaking"

    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced(Event):
    """The next stage begins."""

    kind: ClassVar[str] = "advanced"

    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """The operator continued a paused rollout; `accepted` is the stage whose failures were accepted."""

    kind: ClassVar[str] = "resumed"
    optional: ClassVar[tuple[str, ...]] = ("accepted",)

    accepted: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """The operator tries these devices again."""

    kind: ClassVar[str] = "retried"

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """Every stage has ended."""

    kind: ClassVar[str] = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonedEvent(Event):
    """A change of the rollout's state that has a reason."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(ReasonedEvent):
    """The rollout pauses; `gate` is the stage whose end paused it, or None if the operator did."""

    kind: ClassVar[str] = "paused"

    gate: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted(ReasonedEvent):
    """An abort rule or the operator aborted the rollout."""

    kind: ClassVar[str] = "aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingBack(ReasonedEvent):
    """The devices that the rollout changed are being restored."""

    kind: ClassVar[str] = "rolling_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack(ReasonedEvent):
    """The devices were restored, as far as possible."""

    kind: ClassVar[str] = "rolled_back"


KINDS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        Looked,
        Deployed,
        Cleared,
        Ended,
        Restored,
        Soaking,
        Advanced,
        Resumed,
        Retried,
        Done,
        Paused,
        Aborted,
        RollingBack,
        RolledBack,
    )
}


def parse_event(body: Mapping[str, Any]) -> Event:
    """Return the event in a line of the journal; other fields of the line are ignored.

    Raises:
        ValueError: it is not an event, or one of its fields is missing or of another type.
    """
    name = body.get("event")
    if name not in KINDS:
        raise ValueError(f"{name!r} is not an event of a rollout")
    try:
        event: Event = _adapter(name).validate_python(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"{name}: {where}: {fault['msg']}") from error
    return event


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[name])
