"""Verb `status`: the releases that serve, the state of the outbox, and the last journal entries."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from edgeq_agent import __version__
from edgeq_agent.activation import candidates, counters, soak, state_record, states
from edgeq_agent.autostart import record as service_record
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import from_os, one_line
from edgeq_agent.platforms import identity
from edgeq_agent.releases import pins, release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.storage import journal
from edgeq_agent.storage.home import Home, free_bytes, free_inodes
from edgeq_agent.telemetry import outbox
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json

_JOURNAL_ENTRIES = 20


def status(call: Call) -> Json:
    """Verb `status`: describe every model, the outbox, trust, the service and the disk; changes nothing."""
    autostart = service_record.summary(call.home)
    return {
        "agent": __version__,
        "device_id": identity.device_id(call.home),
        "models": {name: _model_or_problem(call.home, name) for name in call.home.model_names()},
        "outbox": _outbox(call.home),
        "trust": trust_store.summary(call.home).to_json(),
        "service": autostart.to_json() if autostart else None,
        "free_bytes": free_bytes(call.home.root),
        "free_inodes": free_inodes(call.home.root),
        "journal": journal.tail(call.home, _JOURNAL_ENTRIES),
    }


def _outbox(home: Home) -> Json:
    try:
        with outbox.opened(home) as box:
            return box.summary().to_json()
    except (sqlite3.Error, OSError) as error:
        known = from_os(error)
        problem = one_line(known) if known else str(error)
        return dict(outbox.OutboxSummary("", 0, 0, 0).to_json(), problem=problem)


def _model_or_problem(home: Home, name: str) -> Json:
    """Return what is known of a model; the files of one that this user cannot read hide no other model."""
    try:
        return _model(home, name)
    except OSError as error:
        known = from_os(error)
        if known is None:
            raise
        return {"current": None, "state": state_record.NONE, "reason": one_line(known)}


def _model(home: Home, name: str) -> Json:
    record = states.read(home, name)
    current = release_store.current(home, name)
    soaking = soak.status(home, record)
    backend = registry.find(home, record.runtime_of(current))
    releases = release_store.of_model(home, name)
    damaged = release_store.damaged(home, releases)
    return {
        "current": current,
        "previous": record.previous,
        "state": record.state,
        "runtime": record.runtime_of(current),
        "proof": backend.proof if backend else None,
        "since_ns": record.since_ns,
        "reason": record.reason,
        "target": record.target,
        "attempts": record.attempts.to_json(),
        "soak": soaking.to_json() if soaking else None,
        "recorder": asdict(counters.read_trouble(home, name)),
        "pins": pins.read(home, name),
        "releases": releases,
        # A device that reports no damage answers as before there was this field.
        **({"damaged": damaged} if damaged else {}),
        **candidates.status(home, name).to_json(),
    }
