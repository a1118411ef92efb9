"""What every verb does first: finish what was interrupted, and end a soak that is over."""

from __future__ import annotations

import os

from edgeq_agent.activation import candidates, health, soak, states
from edgeq_agent.activation.states import ModelState
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import AgentError, from_os
from edgeq_agent.releases import release_store
from edgeq_agent.storage import clock, files, lock
from edgeq_agent.storage.home import Home

# A rollback that dies this often is not tried again: the check of the old release may be what kills it.
TRIES = 3
# A verb of any kind may have to wait for this; the host's patience is longer.
CHECK_S = 30.0


def recover(place: Home, model: str) -> ModelState:
    """Return the state, with nothing left unfinished (the lock must be held).

    An activation that died before the swap of the link is rolled back, which needs no other step. One that
    died after it is finished forward in the same boot: the release was healthy. After a restart it goes back:
    it may be what restarted the device.
    """
    files.remove(os.path.join(place.model(model), ".current.new"))
    state = states.load(place, model)
    if state.state == states.ACTIVATING and release_store.current(place, model) == state.target:
        if clock.elapsed_ns(state.moment, clock.now()) is None:
            go_back(place, state, "the device restarted during the activation")
        else:
            finish(state)
    elif state.state in (states.STAGED, states.VERIFIED, states.ACTIVATING):
        state.roll_back("interrupted")
    elif state.state == states.ROLLING_BACK:
        go_back(place, state, str(state.reason))
    elif state.state == states.SOAKING:
        found = soak.of(place, state)
        if found.what == soak.COMMIT:
            state.commit()
        elif found.what == soak.BACK:
            go_back(place, state, found.reason)
    candidates.settle(place, state)
    return state


def finish(state: ModelState) -> None:
    """Go on after the swap of the link: into the soak that was asked for, or to the commit."""
    if state.soak:
        state.soaking()
    else:
        state.commit()


def go_back(place: Home, state: ModelState, reason: str) -> None:
    """Let what served before serve again, after a new look at its health.

    When that one is not healthy any more, the target goes on serving if it still is; when neither is, the one
    from before is put back. Either way that is the state `safe`: nothing moves by itself from there.
    """
    state.rolling_back(reason)
    serves, problem = state.fallback, None
    if state.fallback is not None:
        problem = _problem(place, state, state.fallback, state.runtimes.get(state.fallback))
    doubtful = problem is not None and state.target not in (None, state.fallback)
    if doubtful and _problem(place, state, str(state.target), state.target_runtime) is None:
        serves = state.target
    if release_store.current(place, state.model) != serves:
        release_store.point(place, state.model, serves)
    if problem is None:
        state.roll_back(reason)
        return
    name = str(serves)[:12]
    state.safe(f"{reason}; the release before is not healthy either ({problem}); {name} serves", serves)


def _problem(place: Home, state: ModelState, release: str, runtime: str | None) -> str | None:
    """Return why a release cannot serve here; None when it can."""
    if state.tries > TRIES:
        return f"{state.tries - 1} looks at it did not end"
    if runtime is None:
        return "its runtime is not known any more"
    try:
        wanted = release_store.read(place, release)
        release_store.check_blobs(place, wanted)
        state.health = health.check(
            place, wanted, runtime, min(state.timeout_s or CHECK_S, CHECK_S)
        ).to_json()
    except AgentError as error:
        return f"{error.code} {error.subject}: {error.problem}"
    return None


def first(place: Home, response: Response) -> None:
    """Recover before a verb, when there is something to recover and no call is at it.

    What the disk refuses here is told and does not keep the verb from answering: a device whose disk became
    read-only must still say so.
    """
    for model in states.pending(place):
        state = states.load(place, model)
        if state.state == states.SOAKING and soak.of(place, state).what == soak.WAIT:
            continue
        try:
            with lock.hold(place, wait_s=0.0):
                ended = recover(place, model)
        except AgentError as error:
            if not error.transient:  # busy: the activation is not dead but running
                raise
        except OSError as error:
            known = from_os(error)
            if known is None:
                raise
            response.progress("not-recovered", model=model, code=known.code, problem=known.problem)
        else:
            response.progress("recovered", model=model, state=ended.state, reason=ended.reason)
