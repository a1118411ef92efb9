"""A rollout as the fold of its journal: a declared table of states, one record a device, running counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.fleet.rollout.abort import Tally
from edgeq.fleet.rollout.outcomes import FAILURES, Outcome
from edgeq.fleet.rollout.spec import Terms

Event = Mapping[str, Any]


class State(StrEnum):
    """Where a rollout is."""

    RUNNING = "running"
    SOAKING = "soaking"
    PAUSED = "paused"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    DONE = "done"


# event -> the states in which it may be appended. Results of devices arrive also after an abort or a pause:
# those that were being worked on are waited for, and what they did is known.
ALLOWED: dict[str, frozenset[State]] = {
    "looked": frozenset({State.RUNNING}),
    "deployed": frozenset({State.RUNNING, State.PAUSED, State.ABORTED}),
    "outcome": frozenset({State.RUNNING, State.SOAKING, State.PAUSED, State.ABORTED}),
    "soaking": frozenset({State.RUNNING}),
    "advanced": frozenset({State.RUNNING, State.SOAKING}),
    "paused": frozenset({State.RUNNING, State.SOAKING}),
    "resumed": frozenset({State.PAUSED}),
    "aborted": frozenset({State.RUNNING, State.SOAKING, State.PAUSED}),
    "retried": frozenset({State.RUNNING, State.SOAKING, State.PAUSED, State.ABORTED, State.DONE}),
    "cleared": frozenset({State.ABORTED}),
    "done": frozenset({State.RUNNING, State.SOAKING}),
    "rolling_back": frozenset(State) - {State.ROLLING_BACK},
    "restored": frozenset({State.ROLLING_BACK}),
    "rolled_back": frozenset({State.ROLLING_BACK}),
}
_ENTERS: dict[str, State] = {
    "soaking": State.SOAKING,
    "advanced": State.RUNNING,
    "paused": State.PAUSED,
    "resumed": State.RUNNING,
    "aborted": State.ABORTED,
    "retried": State.RUNNING,
    "done": State.DONE,
    "rolling_back": State.ROLLING_BACK,
    "rolled_back": State.ROLLED_BACK,
}


class TransitionError(Exception):
    """An event that the table does not allow here: a bug, or a journal that was edited."""


@dataclass(slots=True)
class Record:
    """What is known of one device.

    Attributes:
        looked: the device said what it serves, and from then on a deploy to it may have begun.
        before: what served before the rollout touched it; None: nothing did.
        deployed: it said that the release serves; the soak has not ended.
        restored: what the rollback of the fleet did: `restored` (what served before serves), `nothing`
            (something else serves than this rollout's release), `failed`, or empty.
        tries: how often a try began.
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
        """Whether it counts as attempted in the abort rules."""
        return self.final or self.deployed


class Rollout:
    """The state; changed by `apply` alone, so that reading the journal again gives the same one.

    Attributes:
        stage: index of the stage that runs, or of the last one.
        accepted: the last stage whose failures somebody accepted, -1: none.
        gate: the stage whose end paused it, or None where somebody asked for the pause.
        aborted: whether it was, also when it has been rolled back since.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.state = State.RUNNING
        self.stage = 0
        self.reason = ""
        self.accepted = -1
        self.gate: int | None = None
        self.aborted = False
        self.records = {name: Record() for name in terms.devices}
        self._stage_of = {name: index for index, stage in enumerate(terms.stages) for name in stage.devices}
        self._failed: Counter[Outcome] = Counter()
        self._attempted = 0

    @property
    def tally(self) -> Tally:
        """The counts that the abort rules look at."""
        return Tally(attempted=self._attempted, failed=dict(self._failed))

    def counts(self, stage: int) -> dict[Outcome, int]:
        """Return how many devices of a stage have each outcome."""
        found = Counter(self.records[name].outcome for name in self.terms.stages[stage].devices)
        return {outcome: found[outcome] for outcome in Outcome if found[outcome]}

    def touched(self, name: str) -> bool:
        """Return whether this rollout may have changed what the device serves."""
        record = self.records[name]
        return record.looked and record.before != self.terms.release

    def apply(self, event: Event) -> None:
        """Take in one event.

        Raises:
            TransitionError: it may not follow here.
        """
        kind = event["event"]
        if self.state not in ALLOWED.get(kind, frozenset()):
            raise TransitionError(f"{kind!r} does not follow {self.state.value!r}")
        if kind in _ENTERS:
            self.state = _ENTERS[kind]
            self.reason = str(event.get("reason", ""))
        if "device" in event:
            self._apply_device(kind, self.records[event["device"]], event)
        elif kind == "aborted":
            self.aborted = True
        elif kind == "retried":
            self.aborted = False
            self._retry(event["devices"])
        elif kind == "advanced":
            self.stage = int(event["stage"])
        elif kind == "paused":
            self.gate = event.get("gate")
        elif kind == "resumed":
            self.accepted = int(event.get("accepted", self.accepted))
        elif kind == "rolling_back":
            for record in self.records.values():
                if record.restored == "failed":
                    record.restored = ""

    def _apply_device(self, kind: str, record: Record, event: Event) -> None:
        before = record.attempted
        if kind == "looked":
            record.tries += 1
            if not record.looked:  # a later look may find what the first try left there
                record.looked, record.before = True, event["before"]
        elif kind == "deployed":
            record.deployed = True
        elif kind == "restored":
            record.restored, record.restored_reason = event["result"], event.get("reason", "")
        elif kind == "cleared":
            record.looked, record.before = False, None
        elif kind == "outcome":
            if record.final:
                raise TransitionError(f"{event['device']!r} has an outcome already")
            record.outcome = Outcome(event["outcome"])
            record.reason, record.code = event.get("reason", ""), event.get("code", "")
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
