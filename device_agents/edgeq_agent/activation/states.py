"""The state machine of an activation: a declared table, each step on disk before the next."""

from __future__ import annotations

import os
from typing import Any

from edgeq_agent.activation import attempt_limit
from edgeq_agent.storage import clock, disk, files, journal
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json

SCHEMA = "edgeq.model-state/1"
NONE = "none"
STAGED = "staged"
VERIFIED = "verified"
ACTIVATING = "activating"
SOAKING = "soaking"
COMMITTED = "committed"
ROLLING_BACK = "rolling_back"
ROLLED_BACK = "rolled_back"
SAFE = "safe"

TRANSITIONS: dict[str, frozenset[str]] = {
    NONE: frozenset({STAGED}),
    STAGED: frozenset({VERIFIED, ROLLED_BACK}),
    VERIFIED: frozenset({ACTIVATING, ROLLED_BACK}),
    ACTIVATING: frozenset({SOAKING, COMMITTED, ROLLING_BACK, ROLLED_BACK}),
    SOAKING: frozenset({COMMITTED, ROLLING_BACK}),
    COMMITTED: frozenset({STAGED}),
    # To itself: a rollback that was cut is tried again, and each try is counted before it begins.
    ROLLING_BACK: frozenset({ROLLING_BACK, ROLLED_BACK, SAFE}),
    ROLLED_BACK: frozenset({STAGED}),
    SAFE: frozenset({STAGED}),
}
# A call that is in one of these and does not run any more was interrupted.
UNFINISHED = frozenset({STAGED, VERIFIED, ACTIVATING, ROLLING_BACK})
# What the next call of any kind has to look at.
PENDING = UNFINISHED | {SOAKING}
_HISTORY = 10


class TransitionError(Exception):
    """A transition that the table does not have: a bug."""


class ModelState:
    """What `models/<name>/state.json` says.

    Attributes:
        state: one of this module's states.
        target, target_runtime, target_history: what the activation that runs now leads to.
        fallback: what served before the activation that runs now; None when nothing did.
        soak: {soak_ns, failure_limit} that was asked for; an empty one commits at once.
        moment: when the present state was entered, in time since boot.
        timeout_s: how long a health check may take.
        tries: how often the rollback that runs now was begun.
        attempts: activations of a release that did not end in a commit.
        runtimes: release -> the runtime that it was committed with.
        history: the releases that served before, newest last; rollback goes there.
        problems: what an answer says of a journal that could not be written.
    """

    def __init__(self, home: Home, model: str, body: Json) -> None:
        self._home = home
        self.model = model
        self.state: str = body.get("state", NONE)
        self.target: str | None = body.get("target")
        self.target_runtime: str | None = body.get("target_runtime")
        self.target_history: list[str] = body.get("target_history", [])
        self.fallback: str | None = body.get("fallback")
        self.soak: Json = body.get("soak") or {}
        self.moment = clock.Moment(str(body.get("boot_id")), int(body.get("since_boot_ns") or 0))
        self.timeout_s: float = body.get("timeout_s") or 0.0
        self.tries: int = body.get("tries", 0)
        self.attempts = attempt_limit.Attempts(body.get("attempts", []))
        self.runtimes: dict[str, str] = body.get("runtimes", {})
        self.history: list[str] = body.get("history", [])
        self.health: Json = body.get("health", {})
        self.since_ns: int | None = body.get("since_ns")
        self.reason: str | None = body.get("reason")
        self.problems: Json = {}

    @property
    def previous(self) -> str | None:
        """The release that a rollback leads to."""
        if self.state in (SOAKING, ROLLING_BACK):
            return self.fallback
        return self.history[-1] if self.history else None

    def runtime_of(self, release: str | None) -> str | None:
        """Return the runtime that a serving release runs under.

        Between the swap of the link and the commit, a release is served that is not committed yet.
        """
        if release is None:
            return None
        if self.state in (ACTIVATING, SOAKING, ROLLING_BACK) and release == self.target:
            return self.target_runtime
        return self.runtimes.get(release)

    def begin(
        self,
        target: str,
        runtime: str,
        history: list[str],
        fallback: str | None = None,
        soak: Json | None = None,
        timeout_s: float = 0.0,
    ) -> None:
        """Enter `staged` towards a release; the attempt counts from here on, also when it dies."""
        changes = {
            "target": target,
            "target_runtime": runtime,
            "target_history": history[-_HISTORY:],
            "fallback": fallback,
            "soak": soak or {},
            "timeout_s": timeout_s,
            "tries": 0,
            "reason": None,
            "attempts": self.attempts.with_one_more(target),
        }
        self._advance(STAGED, changes)

    def verified(self, health: Json) -> None:
        """Enter `verified`: the blobs are whole and the release is healthy on this device."""
        self._advance(VERIFIED, {"health": health}, health=health)

    def activating(self) -> None:
        """Enter `activating`: from here on a call that died is finished forward once the link was swapped."""
        self._advance(ACTIVATING)

    def soaking(self) -> None:
        """Enter `soaking`: the release serves, and is watched from this moment on."""
        self._advance(SOAKING)

    def commit(self) -> None:
        """Enter `committed`."""
        if self.target is None or self.target_runtime is None:
            raise TransitionError("commit without a target")
        trust_store.commit(self._home, self.model, self.target)
        changes = {
            "runtimes": dict(self.runtimes, **{self.target: self.target_runtime}),
            "history": self.target_history,
            "since_ns": clock.wall_ns(),
            "attempts": self.attempts.without(self.target),
        }
        self._advance(COMMITTED, changes)

    def roll_back(self, reason: str) -> None:
        """Enter `rolled_back`: what served before serves."""
        self._advance(ROLLED_BACK, {"reason": reason}, reason=reason)

    def rolling_back(self, reason: str) -> None:
        """Enter `rolling_back`: the target serves and must not go on; counts as one try."""
        self._advance(ROLLING_BACK, {"reason": reason, "tries": self.tries + 1}, reason=reason)

    def safe(self, reason: str, serves: str | None) -> None:
        """Enter `safe`: the rollback failed; `serves` stays until somebody decides."""
        changes: Json = {"reason": reason}
        if serves is not None and serves == self.target != self.fallback and self.target_runtime:
            changes["runtimes"] = dict(self.runtimes, **{serves: self.target_runtime})
            changes["history"] = self.target_history
        self._advance(SAFE, changes, reason=reason, serves=serves)

    def trying(self, release: str) -> None:
        """Count an attempt at a release that is not to serve; the state stays."""
        self._write({"attempts": self.attempts.with_one_more(release)})

    def proved(self, release: str) -> None:
        """Forget the attempts at a release; the state stays."""
        self._write({"attempts": self.attempts.without(release)})

    def trim(self, kept: set[str]) -> None:
        """Forget the releases of the history that are about to go; the state stays."""
        changes = {
            "history": [release for release in self.history if release in kept],
            "target_history": [release for release in self.target_history if release in kept],
            "runtimes": {release: self.runtimes[release] for release in self.runtimes if release in kept},
        }
        self._write(changes)

    def _advance(self, state: str, changes: Json | None = None, **details: Any) -> None:
        if state not in TRANSITIONS[self.state]:
            raise TransitionError(f"{self.model}: {self.state} -> {state}")
        self._write(dict(changes or {}, state=state, moment=clock.now()))
        noted = journal.note(
            self._home, "state", model=self.model, state=state, release=self.target, **details
        )
        self.problems.update(noted)

    def _write(self, changes: Json) -> None:
        before = {name: getattr(self, name) for name in changes}
        vars(self).update(changes)
        folder = self._home.model(self.model)
        try:
            disk.make_folders(folder)
            files.write_json(os.path.join(folder, "state.json"), self.body())
        except BaseException:
            # What is not on disk is not so: going back must start from what is there.
            vars(self).update(before)
            raise

    def body(self) -> Json:
        """Return what is stored."""
        previous = self.history[-1] if self.history else None
        return {
            "schema": SCHEMA,
            "model": self.model,
            "state": self.state,
            "boot_id": self.moment.boot_id,
            "since_boot_ns": self.moment.since_boot_ns,
            "target": self.target,
            "target_runtime": self.target_runtime,
            "target_history": self.target_history,
            "fallback": self.fallback,
            "soak": self.soak,
            "timeout_s": self.timeout_s,
            "tries": self.tries,
            "attempts": self.attempts.body(),
            "runtimes": self.runtimes,
            "history": self.history,
            "previous": previous,
            "pinned": [name for name in (self.target, previous) if name],
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
        body = {"reason": DAMAGED}
    usable = isinstance(body, dict) and body.get("state", NONE) in TRANSITIONS
    return ModelState(home, model, body if usable else {"reason": DAMAGED})


DAMAGED = "state.json was damaged"


def pending(home: Home) -> list[str]:
    """Return the models that an interrupted call or a soak left something to do for."""
    return [name for name in sorted(os.listdir(home.models)) if load(home, name).state in PENDING]
