"""The state of a rollout, computed from its journal: transition table, device records, running counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgeq.fleet.rollout.abort import Tally
from edgeq.fleet.rollout.events import (
    Aborted,
    Advanced,
    Cleared,
    Deployed,
    DeviceEvent,
    Ended,
    Event,
    Looked,
    Paused,
    ReasonedEvent,
    Restored,
    Resumed,
    Retried,
    RollingBack,
)
from edgeq.fleet.rollout.outcomes import FAILURES, Outcome
from edgeq.fleet.rollout.spec import RolloutSpec


class RolloutState(StrEnum):
    """The state of a rollout."""

    RUNNING = "running"
    SOAKING = "soaking"
    PAUSED = "paused"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    DONE = "done"


# event -> the states in which it may be appended. Results of devices also arrive after an abort or a pause:
# operations in progress are waited for.
ALLOWED: dict[str, frozenset[RolloutState]] = {
    "looked": frozenset({RolloutState.RUNNING}),
    "deployed": frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ABORTED}),
    "outcome": frozenset(
        {RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED, RolloutState.ABORTED}
    ),
    "soaking": frozenset({RolloutState.RUNNING}),
    "advanced": frozenset({RolloutState.RUNNING, RolloutState.SOAKING}),
    "paused": frozenset({RolloutState.RUNNING, RolloutState.SOAKING}),
    "resumed": frozenset({RolloutState.PAUSED}),
    "aborted": frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED}),
    "retried": frozenset(
        {
            RolloutState.RUNNING,
            RolloutState.SOAKING,
            RolloutState.PAUSED,
            RolloutState.ABORTED,
            RolloutState.DONE,
        }
    ),
    "cleared": frozenset({RolloutState.ABORTED}),
    "done": frozenset({RolloutState.RUNNING, RolloutState.SOAKING}),
    "rolling_back": frozenset(RolloutState) - {RolloutState.ROLLING_BACK},
    "restored": frozenset({RolloutState.ROLLING_BACK}),
    "rolled_back": frozenset({RolloutState.ROLLING_BACK}),
}
_ENTERS: dict[str, RolloutState] = {
    "soaking": RolloutState.SOAKING,
    "advanced": RolloutState.RUNNING,
    "paused": RolloutState.PAUSED,
    "resumed": RolloutState.RUNNING,
    "aborted": RolloutState.ABORTED,
    "retried": RolloutState.RUNNING,
    "done": RolloutState.DONE,
    "rolling_back": RolloutState.ROLLING_BACK,
    "rolled_back": RolloutState.ROLLED_BACK,
}


class TransitionError(Exception):
    """An event that the table does not allow in this state: a bug, or an edited journal."""


@dataclass(slots=True)
class DeviceRecord:
    """What the journal says of one device.

    Attributes:
        looked: its status was read; from then on a deploy to it may have started.
        before: the release that served before the rollout, or None.
        deployed: the release serves, and its soak has not ended.
        restored: the result of the rollout's rollback: `restored` (the release before serves again),
            `nothing` (another release than this rollout's serves), `failed`, or empty.
        tries: the number of attempts.
    """

    outcome: Outcome = Outcome.PENDING
    looked: bool = False
    before: str | None = None
    deployed: bool = False
    reason: str = ""
    code: str = ""
    tries: int = 0
    restored: str = ""
    restored_reason: str = ""

    @property
    def final(self) -> bool:
        """Whether it has an outcome."""
        return self.outcome is not Outcome.PENDING

    @property
    def attempted(self) -> bool:
        """Whether the abort rules count it as attempted."""
        return self.final or self.deployed


class Rollout:
    """A rollout; only `apply` changes it, so that replaying the journal gives the same state.

    Attributes:
        stage: index of the current stage, or of the last one.
        accepted: the last stage whose failures the operator accepted; -1: none.
        gate: the stage whose end paused the rollout, or None if the operator paused it.
        aborted: whether it was aborted, even if it was rolled back since.
    """

    def __init__(self, spec: RolloutSpec) -> None:
        self.spec = spec
        self.state = RolloutState.RUNNING
        self.stage = 0
        self.reason = ""
        self.accepted = -1
        self.gate: int | None = None
        self.aborted = False
        self.records = {name: DeviceRecord() for name in spec.devices}
        self._stage_of = {name: index for index, stage in enumerate(spec.stages) for name in stage.devices}
        self._failed: Counter[Outcome] = Counter()
        self._attempted = 0

    @property
    def tally(self) -> Tally:
        """The counts that the abort rules evaluate."""
        return Tally(attempted=self._attempted, failed=dict(self._failed))

    def counts(self, stage: int) -> dict[Outcome, int]:
        """Return how many devices of a stage have each outcome."""
        counts = Counter(self.records[name].outcome for name in self.spec.stages[stage].devices)
        return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}

    def touched(self, name: str) -> bool:
        """Return whether this rollout may have changed what the device serves."""
        record = self.records[name]
        return record.looked and record.before != self.spec.release

    def apply(self, event: Event) -> None:
        """Apply one event.

        Raises:
            TransitionError: it may not follow in this state.
        """
        kind = event.kind
        if self.state not in ALLOWED[kind]:
            raise TransitionError(f"{kind!r} does not follow {self.state.value!r}")
        if kind in _ENTERS:
            self.state = _ENTERS[kind]
            self.reason = event.reason if isinstance(event, ReasonedEvent) else ""
        match event:
            case DeviceEvent():
                self._apply_device(event, self.records[event.device])
            case Aborted():
                self.aborted = True
            case Retried():
                self.aborted = False
                self._retry(event.devices)
            case Advanced():
                self.stage = event.stage
            case Paused():
                self.gate = event.gate
            case Resumed(accepted=int(stage)):
                self.accepted = stage
            case RollingBack():
                for record in self.records.values():
                    if record.restored == "failed":
                        record.restored = ""

    def _apply_device(self, event: DeviceEvent, record: DeviceRecord) -> None:
        before = record.attempted
        match event:
            case Looked():
                record.tries += 1
                if not record.looked:  # a later look may find what the first attempt left there
                    record.looked, record.before = True, event.before
            case Deployed():
                record.deployed = True
            case Restored():
                record.restored, record.restored_reason = event.result, event.reason
            case Cleared():
                record.looked, record.before = False, None
            case Ended():
                if record.final:
                    raise TransitionError(f"{event.device!r} has an outcome already")
                record.outcome, record.reason, record.code = event.outcome, event.reason, event.code
                if record.outcome in FAILURES:
                    self._failed[record.outcome] += 1
        self._attempted += record.attempted - before

    def _retry(self, names: Sequence[str]) -> None:
        for name in names:
            record = self.records[name]
            if record.outcome in FAILURES:
                self._failed[record.outcome] -= 1
            self._attempted -= record.attempted
            record.outcome, record.deployed = Outcome.PENDING, False
            record.reason = record.code = ""
        self.stage = min((self._stage_of[name] for name in names), default=self.stage)
        self.accepted = min(self.accepted, self.stage - 1)
