"""Verb `status`: which releases serve, what waits in the outbox, what happened lately."""

from __future__ import annotations

import os

from edgeq_agent import __version__
from edgeq_agent.activation import candidates, soak, states
from edgeq_agent.autostart import record as service_record
from edgeq_agent.calls.call import Call
from edgeq_agent.platforms import identity
from edgeq_agent.releases import pins, release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.storage import home, journal
from edgeq_agent.telemetry import outbox
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json

_JOURNAL_ENTRIES = 20


def status(call: Call) -> Json:
    """Verb `status`."""
    names = sorted(os.listdir(call.home.models))
    with outbox.opened(call.home) as box:
        waiting = box.summary()
    return {
        "agent": __version__,
        "device_id": identity.device_id(call.home),
        "models": {name: _model(call.home, name) for name in names},
        "outbox": waiting,
        "trust": trust_store.summary(call.home),
        "service": service_record.summary(call.home),
        "free_bytes": home.free_bytes(call.home.root),
        "free_inodes": home.free_inodes(call.home.root),
        "journal": journal.tail(call.home, _JOURNAL_ENTRIES),
    }


def _model(place: home.Home, name: str) -> Json:
    state = states.load(place, name)
    current = release_store.current(place, name)
    return {
        "current": current,
        "previous": state.previous,
        "state": state.state,
        "runtime": state.runtime_of(current),
        "proof": _proof(place, state.runtime_of(current)),
        "since_ns": state.since_ns,
        "reason": state.reason,
        "target": state.target,
        "attempts": state.attempts.body(),
        "soak": soak.told(place, state),
        "pins": pins.read(place, name),
        "releases": release_store.of_model(place, name),
        **candidates.told(place, name),
    }


def _proof(place: home.Home, digest: str | None) -> str | None:
    """Return what was seen of the release that serves: `golden` outputs, or that it `ran`."""
    backend = registry.find(place, digest)
    return backend.proof if backend else None
