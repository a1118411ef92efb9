"""Verbs `soak` and `recover`: look after what serves on trial, and make whole what was interrupted."""

from __future__ import annotations

import os

from edgeq_agent.activation import recovery, soak, states
from edgeq_agent.activation.states import ModelState
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.releases import release_store
from edgeq_agent.storage import lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


def end_soak(call: Call) -> Json:
    """Verb `soak`: look at a model's soak and end it when it is over; when none runs, nothing changes.

    Raises:
        AgentError: EQ510 no such model, EQ508 busy.
    """
    model = request.model_name(call.request)
    with lock.hold(call.home):
        before = states.load(call.home, model).state
        if before == states.NONE:
            release_store.need_current(call.home, model)
        state = recovery.recover(call.home, model)
        return dict(_told(call.home, state, before), model=model)


def recover(call: Call) -> Json:
    """Verb `recover`: make every model whole, as the service does when the device has started.

    Raises:
        AgentError: EQ508 busy.
    """
    found = {}
    with lock.hold(call.home):
        scratch.sweep(call.home)
        for model in sorted(os.listdir(call.home.models)):
            before = states.load(call.home, model).state
            found[model] = _told(call.home, recovery.recover(call.home, model), before)
    return {"models": found}


def _told(place: Home, state: ModelState, before: str) -> Json:
    body: Json = {
        "release": release_store.current(place, state.model),
        "target": state.target,
        "state": state.state,
        "before": before,
        "changed": state.state != before,
        "reason": state.reason,
        "soak": soak.told(place, state),
    }
    body.update(state.problems)
    return body
