"""The state machine of an activation: declared transitions, each written to disk before the next step."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeq_agent.activation.state_record import (
    ACTIVATING,
    COMMITTED,
    NONE,
    ROLLED_BACK,
    ROLLING_BACK,
    SAFE,
    SOAKING,
    STAGED,
    VERIFIED,
    Attempts,
    SoakPolicy,
    StateRecord,
)
from edgeq_agent.storage import clock, disk, files, journal
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_store

if TYPE_CHECKING:
    from edgeq_agent.inference.job import HealthReport

TRANSITIONS: dict[str, frozenset[str]] = {
    NONE: frozenset({STAGED}),
    STAGED: frozenset({VERIFIED, ROLLED_BACK}),
    VERIFIED: frozenset({ACTIVATING, ROLLED_BACK}),
    ACTIVATING: frozenset({SOAKING, COMMITTED, ROLLING_BACK, ROLLED_BACK}),
    SOAKING: frozenset({COMMITTED, ROLLING_BACK}),
    COMMITTED: frozenset({STAGED}),
    # To itself: an interrupted rollback is tried again, and each try is counted before it begins.
    ROLLING_BACK: frozenset({ROLLING_BACK, ROLLED_BACK, SAFE}),
    ROLLED_BACK: frozenset({STAGED}),
    SAFE: frozenset({STAGED}),
}
# A model found in one of these states without a running call was interrupted.
UNFINISHED = frozenset({STAGED, VERIFIED, ACTIVATING, ROLLING_BACK})
# States that every verb has to look at first.
PENDING = UNFINISHED | {SOAKING}
DAMAGED = "state.json was damaged"
_HISTORY = 10


class InvalidTransition(Exception):
    """A transition that the table does not have: a bug."""


class ModelState:
    """The state machine of one model; the lock must be held by whoever changes it.

    Attributes:
        record: what is on disk.
        problems: fields that the response gets when the journal could not be written.
    """

    def __init__(self, home: Home, record: StateRecord) -> None:
        self._home = home
        self.record = record
        self.problems: dict[str, str] = {}

    @property
    def model(self) -> str:
        """The model's name."""
        return self.record.model

    @property
    def state(self) -> str:
        """The present state."""
        return self.record.state

    def begin(
        self,
        target: str,
        runtime: str,
        history: tuple[str, ...],
        *,
        attempts: Attempts | None = None,
        fallback: str | None = None,
        soak: SoakPolicy | None = None,
        timeout_s: float = 0.0,
    ) -> None:
        """Enter `staged`; from here on the attempt counts, even when the device restarts in it.

        Args:
            attempts: the counts before this attempt; default: those of the record.
        """
        self._advance(
            STAGED,
            {
                "target": target,
                "target_runtime": runtime,
                "target_history": history[-_HISTORY:],
                "fallback": fallback,
                "soak": soak,
                "timeout_s": timeout_s,
                "tries": 0,
                "reason": None,
                "attempts": (self.record.attempts if attempts is None else attempts).incremented(target),
            },
        )

    def verified(self, health: HealthReport) -> None:
        """Enter `verified`: the blobs are complete and the release is healthy on this device."""
        body = health.to_json()
        self._advance(VERIFIED, {"health": body}, health=body)

    def activating(self) -> None:
        """Enter `activating`: once the link is swapped, an interrupted call is finished, not undone."""
        self._advance(ACTIVATING)

    def soaking(self) -> None:
        """Enter `soaking`: the release serves, and its soak time begins."""
        self._advance(SOAKING)

    def commit(self) -> None:
        """Enter `committed`."""
        record = self.record
        if record.target is None or record.target_runtime is None:
            raise InvalidTransition("commit without a target")
        trust_store.commit(self._home, self.model, record.target)
        self._advance(
            COMMITTED,
            {
                "runtimes": dict(record.runtimes, **{record.target: record.target_runtime}),
                "history": record.target_history,
                "since_ns": clock.wall_ns(),
                "attempts": record.attempts.without(record.target),
            },
        )

    def rolling_back(self, reason: str) -> None:
        """Enter `rolling_back`: the target serves and must be replaced; counts as one try."""
        self._advance(ROLLING_BACK, {"reason": reason, "tries": self.record.tries + 1}, reason=reason)

    def roll_back(self, reason: str, health: HealthReport | None = None) -> None:
        """Enter `rolled_back`: the previous release serves.

        Args:
            health: of the release that serves, where it was checked.
        """
        self._advance(ROLLED_BACK, {"reason": reason, **_measured(health)}, reason=reason)

    def safe(self, reason: str, serves: str | None, health: HealthReport | None = None) -> None:
        """Enter `safe`: the rollback failed; `serves` stays until an operator deploys another release."""
        record = self.record
        changes: dict[str, Any] = {"reason": reason, **_measured(health)}
        if serves is not None and serves == record.target != record.fallback and record.target_runtime:
            changes["runtimes"] = dict(record.runtimes, **{serves: record.target_runtime})
            changes["history"] = record.target_history
        self._advance(SAFE, changes, reason=reason, serves=serves)

    def count_attempt(self, release: str) -> None:
        """Count an attempt at a release that will not serve; the state stays."""
        self._write({"attempts": self.record.attempts.incremented(release)})

    def forget_attempts(self, release: str) -> None:
        """Set the attempts at a release to zero; the state stays."""
        self._write({"attempts": self.record.attempts.without(release)})

    def trim(self, kept: set[str]) -> None:
        """Drop releases that are about to be removed from the history; the state stays."""
        record = self.record
        self._write(
            {
                "history": tuple(release for release in record.history if release in kept),
                "target_history": tuple(release for release in record.target_history if release in kept),
                "runtimes": {
                    release: digest for release, digest in record.runtimes.items() if release in kept
                },
            }
        )

    def _advance(self, state: str, changes: dict[str, Any] | None = None, **details: Any) -> None:
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransition(f"{self.model}: {self.state} -> {state}")
        self._write(dict(changes or {}, state=state, entered=clock.now()))
        noted = journal.note(
            self._home,
            "state",
            model=self.model,
            state=state,
            release=self.record.target,
            runtime=self.record.target_runtime,
            **details,
        )
        self.problems.update(noted)

    def _write(self, changes: dict[str, Any]) -> None:
        record = replace(self.record, **changes)
        write(self._home, record)
        # Only now: when the disk refuses, going back must start from what is on it.
        self.record = record


def _measured(health: HealthReport | None) -> dict[str, Any]:
    return {} if health is None else {"health": health.to_json()}


def read(home: Home, model: str) -> StateRecord:
    """Return the content of a model's state file; a damaged file counts as no state.

    A damaged file does not affect the link `current`: the release goes on serving, and the next activation
    writes a new state.
    """
    try:
        return StateRecord.from_json(model, files.read_json(path_of(home, model)))
    except FileNotFoundError:
        return StateRecord(model)
    except ValueError:
        return StateRecord(model, reason=DAMAGED)


def write(home: Home, record: StateRecord) -> None:
    """Replace a model's state file (lock held)."""
    disk.make_folders(home.model(record.model))
    files.write_json(path_of(home, record.model), record.to_json())


def path_of(home: Home, model: str) -> str:
    """Return the path of a model's state file."""
    return os.path.join(home.model(model), "state.json")


def load(home: Home, model: str) -> ModelState:
    """Return the state machine of a model, in the state that `read` returns."""
    return ModelState(home, read(home, model))


def pending(home: Home) -> list[str]:
    """Return the models with an interrupted call or a soak to finish."""
    return [name for name in home.model_names() if read(home, name).state in PENDING]
