"""Verb `status`: which releases serve, what waits in the outbox, what happened lately."""

from __future__ import annotations

import os

from edgeq_agent import __version__, activation, device, home, journal, lock, outbox, releases, states, trust
from edgeq_agent.call import Call
from edgeq_agent.errors import AgentError
from edgeq_agent.wire import Json

_JOURNAL_ENTRIES = 20


def status(call: Call) -> Json:
    """Verb `status`; an activation whose process died is finished here, when no other call runs."""
    names = sorted(os.listdir(call.home.models))
    pending = [name for name in names if states.load(call.home, name).state in states.UNFINISHED]
    if pending:
        _recover(call.home, pending)
    with outbox.opened(call.home) as box:
        waiting = box.summary()
    return {
        "agent": __version__,
        "device_id": device.device_id(call.home),
        "models": {name: _model(call.home, name) for name in names},
        "outbox": waiting,
        "trust": trust.summary(call.home),
        "free_bytes": home.free_bytes(call.home.root),
        "journal": journal.tail(call.home, _JOURNAL_ENTRIES),
    }


def _recover(place: home.Home, names: list[str]) -> None:
    try:
        with lock.hold(place, wait_s=0.0):
            for name in names:
                activation.recover(place, name)
    except AgentError as error:
        if not error.transient:
            raise
        # Held: the activation is not dead but running. Its state is told as it is.


def _model(place: home.Home, name: str) -> Json:
    state = states.load(place, name)
    current = releases.current(place, name)
    return {
        "current": current,
        "previous": state.previous,
        "state": state.state,
        "runtime": state.runtime_of(current),
        "since_ns": state.since_ns,
        "reason": state.reason,
        "releases": releases.of_model(place, name),
    }
