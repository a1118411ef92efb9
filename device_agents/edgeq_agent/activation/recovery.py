"""Finish or undo interrupted activations, and end soaks whose time is over; every verb does this first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

from edgeq_agent.activation import candidates, healing, health, soak, state_record, states
from edgeq_agent.activation.soak import SoakStatus
from edgeq_agent.activation.state_record import StateRecord
from edgeq_agent.activation.states import ModelState
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import AgentError, from_os
from edgeq_agent.inference.job import HealthReport
from edgeq_agent.releases import release_store
from edgeq_agent.storage import clock, files, lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

# A rollback that died this often is not tried again: checking the old release may be what kills it.
TRIES = 3
# Any verb may have to wait for this check; the host's own timeout is longer.
CHECK_S = 30.0


def recover(home: Home, model: str) -> ModelState:
    """Return the model's state, with nothing left unfinished (lock held).

    An activation that was interrupted before the swap of the link is rolled back; nothing else is needed. One
    that was interrupted after the swap is finished if this is the same boot, because the release was healthy.
    After a restart it is rolled back, because the release may be what restarted the device.
    """
    files.remove(os.path.join(home.model(model), ".current.new"))
    healing.heal_model(home, model)
    state = states.load(home, model)
    if state.state == state_record.ACTIVATING and release_store.current(home, model) == state.record.target:
        if clock.elapsed_ns(state.record.entered, clock.now()) is None:
            roll_back(home, state, "the device restarted during the activation")
        else:
            finish(state)
    elif state.state in (state_record.STAGED, state_record.VERIFIED, state_record.ACTIVATING):
        state.roll_back("interrupted")
    elif state.state == state_record.ROLLING_BACK:
        roll_back(home, state, str(state.record.reason))
    elif state.state == state_record.SOAKING:
        decision = soak.check(home, state.record)
        if decision.action == soak.COMMIT:
            state.commit()
        elif decision.action == soak.ROLL_BACK:
            roll_back(home, state, decision.reason)
    candidates.settle(home, state.record)
    return state


def finish(state: ModelState) -> None:
    """Continue after the swap of the link: start the requested soak, or commit."""
    if state.record.soak:
        state.soaking()
    else:
        state.commit()


def roll_back(home: Home, state: ModelState, reason: str) -> None:
    """Let the previous release serve again, after a new health check (lock held).

    When the previous release is not healthy any more, the target goes on serving if it still is; when neither
    is, the previous one is put back. In both cases the state becomes `safe`: nothing changes from there
    without an operator.
    """
    state.rolling_back(reason)
    before = state.record
    serves, problem, measured = before.fallback, None, None
    if before.fallback is not None:
        check = _check(home, state, before.fallback, before.runtimes.get(before.fallback))
        problem, measured = check.problem, check.health
    if problem is not None and before.target not in (None, before.fallback):
        check = _check(home, state, str(before.target), before.target_runtime)
        if check.problem is None:
            serves, measured = before.target, check.health
    if release_store.current(home, state.model) != serves:
        release_store.point(home, state.model, serves)
    if problem is None:
        state.roll_back(reason, measured)
        return
    name = str(serves)[:12]
    state.safe(
        f"{reason}; the previous release is not healthy either ({problem}); {name} serves", serves, measured
    )


@dataclass(frozen=True)
class RecoveryResult:
    """The result of recovering one model.

    Attributes:
        release: the release that serves now; None when none does.
        before: the state before the recovery.
        soak: None when the release is not soaking.
        problems: what failed without failing the recovery.
    """

    record: StateRecord
    release: str | None
    before: str
    soak: SoakStatus | None
    problems: dict[str, str]

    def to_json(self) -> Json:
        """Return the result as the response has it."""
        return dict(
            self.problems,
            release=self.release,
            target=self.record.target,
            state=self.record.state,
            before=self.before,
            changed=self.record.state != self.before,
            reason=self.record.reason,
            soak=self.soak.to_json() if self.soak else None,
        )


def recover_model(home: Home, model: str) -> RecoveryResult:
    """Recover a model and return the result (lock held)."""
    before = states.read(home, model).state
    state = recover(home, model)
    return RecoveryResult(
        record=state.record,
        release=release_store.current(home, model),
        before=before,
        soak=soak.status(home, state.record),
        problems=state.problems,
    )


def recover_all(home: Home) -> dict[str, RecoveryResult]:
    """Recover every model, as after a boot; takes the lock.

    Raises:
        AgentError: EQ508 busy.
    """
    with lock.hold(home):
        scratch.sweep(home)
        return {model: recover_model(home, model) for model in home.model_names()}


class _Check(NamedTuple):
    """Why a release cannot serve, or what its health check has measured."""

    problem: str | None = None
    health: HealthReport | None = None


def _check(home: Home, state: ModelState, release: str, runtime: str | None) -> _Check:
    tries = state.record.tries
    if tries > TRIES:
        return _Check(f"{tries - 1} checks of it did not end")
    if runtime is None:
        return _Check("its runtime is no longer known")
    try:
        manifest = release_store.read(home, release)
        release_store.check_blobs(home, manifest)
        timeout_s = min(state.record.timeout_s or CHECK_S, CHECK_S)
        return _Check(health=health.check(home, manifest, runtime, timeout_s))
    except AgentError as error:
        return _Check(f"{error.code} {error.subject}: {error.problem}")


def recover_pending(home: Home, response: Response) -> None:
    """Recover all models before a verb, unless another call is at work.

    A disk that refuses is reported and does not stop the verb: a device whose disk became read-only must
    still be able to say so.
    """
    for model in states.pending(home):
        now = states.read(home, model)
        if now.state == state_record.SOAKING and soak.check(home, now).action == soak.WAIT:
            continue
        try:
            with lock.hold(home, wait_s=0.0):
                state = recover(home, model)
        except AgentError as error:
            if not error.transient:  # transient: busy, so the activation was not interrupted but is running
                raise
        except OSError as error:
            known = from_os(error)
            if known is None:
                raise
            response.progress("not-recovered", model=model, code=known.code, problem=known.problem)
        else:
            response.progress("recovered", model=model, state=state.state, reason=state.record.reason)
