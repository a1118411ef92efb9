"""The state machine of an activation: a declared table, each step on disk before the next."""

from __future__ import annotations

import os
import time
from typing import Any

from edgeq_agent import files, journal, trust
from edgeq_agent.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.model-state/1"
NONE = "none"
STAGED = "staged"
VERIFIED = "verified"
ACTIVATING = "activating"
COMMITTED = "committed"
ROLLED_BACK = "rolled_back"

TRANSITIONS: dict[str, frozenset[str]] = {
    NONE: frozenset({STAGED}),
    STAGED: frozenset({VERIFIED, ROLLED_BACK}),
    VERIFIED: frozenset({ACTIVATING, ROLLED_BACK}),
    ACTIVATING: frozenset({COMMITTED, ROLLED_BACK}),
    COMMITTED: frozenset({STAGED}),
    ROLLED_BACK: frozenset({STAGED}),
}
UNFINISHED = frozenset({STAGED, VERIFIED, ACTIVATING})
_HISTORY = 10


class TransitionError(Exception):
    """A transition that the table does not have: a bug."""


class ModelState:
    """What `models/<name>/state.json` says.

    Attributes:
        state: one of this module's states.
        target, target_runtime, target_history: what the activation that runs now leads to.
        runtimes: release -> the runtime that it was committed with.
        history: the releases that served before, newest last; rollback goes there.
    """

    def __init__(self, home: Home, model: str, body: Json) -> None:
        self._home = home
        self.model = model
        self.state: str = body.get("state", NONE)
        self.target: str | None = body.get("target")
        self.target_runtime: str | None = body.get("target_runtime")
        self.target_history: list[str] = body.get("target_history", [])
        self.runtimes: dict[str, str] = body.get("runtimes", {})
        self.history: list[str] = body.get("history", [])
        self.health: Json = body.get("health", {})
        self.since_ns: int | None = body.get("since_ns")
        self.reason: str | None = body.get("reason")

    @property
    def previous(self) -> str | None:
        """The release that a rollback leads to."""
        return self.history[-1] if self.history else None

    def runtime_of(self, release: str | None) -> str | None:
        """Return the runtime that a serving release runs under.

        Between the swap of the link and the commit, a release is served that is not committed yet.
        """
        if release is None:
            return None
        if self.state == ACTIVATING and release == self.target:
            return self.target_runtime
        return self.runtimes.get(release)

    def begin(self, target: str, runtime: str, history: list[str]) -> None:
        """Enter `staged` towards a release."""
        self.target, self.target_runtime = target, runtime
        self.target_history = history[-_HISTORY:]
        self.reason = None
        self._advance(STAGED)

    def verified(self, health: Json) -> None:
        """Enter `verified`: the blobs are whole and the release is healthy on this device."""
        self._advance(VERIFIED, health=health)
        self.health = health

    def activating(self) -> None:
        """Enter `activating`: from here on a crash is finished forward once the link was swapped."""
        self._advance(ACTIVATING)

    def commit(self) -> None:
        """Enter `committed`."""
        if self.target is None or self.target_runtime is None:
            raise TransitionError("commit without a target")
        trust.commit(self._home, self.model, self.target)
        self.runtimes[self.target] = self.target_runtime
        self.history = self.target_history
        self.since_ns = time.time_ns()
        self._advance(COMMITTED)

    def roll_back(self, reason: str) -> None:
        """Enter `rolled_back`: what served before still serves."""
        self.reason = reason
        self._advance(ROLLED_BACK, reason=reason)

    def _advance(self, state: str, **details: Any) -> None:
        if state not in TRANSITIONS[self.state]:
            raise TransitionError(f"{self.model}: {self.state} -> {state}")
        self.state = state
        folder = self._home.model(self.model)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        files.write_json(os.path.join(folder, "state.json"), self.body())
        journal.append(self._home, "state", model=self.model, state=state, release=self.target, **details)

    def body(self) -> Json:
        """Return what is stored."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "state": self.state,
            "target": self.target,
            "target_runtime": self.target_runtime,
            "target_history": self.target_history,
            "runtimes": self.runtimes,
            "history": self.history,
            "previous": self.previous,
            "pinned": [name for name in (self.target, self.previous) if name],
            "health": self.health,
            "since_ns": self.since_ns,
            "reason": self.reason,
        }


def load(home: Home, model: str) -> ModelState:
    """Return a model's state; a file that holds no state (a damaged disk) counts as none.

    The link `current` is not touched by that: what serves goes on serving, the next activation writes a new
    state.
    """
    try:
        body = files.read_json(os.path.join(home.model(model), "state.json"))
    except FileNotFoundError:
        body = {}
    except ValueError:
        body = {"reason": "state.json was damaged"}
    usable = isinstance(body, dict) and body.get("state", NONE) in TRANSITIONS
    return ModelState(home, model, body if usable else {"reason": "state.json was damaged"})
