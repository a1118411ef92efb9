"""Repair a damaged home: rename what cannot be read, put in its place what is known, and report it.

Every verb does this first. The trust store is left alone: a device whose keys cannot be read accepts no
release until an operator repairs it. The outbox and the counters repair themselves where they are opened.
"""

from __future__ import annotations

import os
from typing import Iterable

from edgeq_agent.activation import candidates, state_record, states
from edgeq_agent.activation.state_record import StateRecord
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.platforms import identity
from edgeq_agent.releases import pins, release_store
from edgeq_agent.storage import damage, lock
from edgeq_agent.storage.damage import Damage, Inspection
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

_WAIT_S = 2.0
_STATE_LOST = (
    "what serves goes on serving; its history was rebuilt from the journal, and the number of failed "
    "attempts and an unfinished soak are lost"
)


def ensure(home: Home) -> None:
    """Create the missing folders; a file in the place of one is renamed.

    Raises:
        OSError: the disk refuses.
    """
    for folder in home.folders:
        if os.path.lexists(folder) and not os.path.isdir(folder) and folder != home.root:
            damage.set_aside(home, folder, "is not a folder", "a new folder takes its place")
    home.ensure()
    for path in (home.lock, home.partials_lock):
        if os.path.isdir(path):
            damage.try_to_set_aside(home, path, "is a folder", "nothing is lost: it is only a lock")
    if os.path.lexists(home.journal) and not _is_usable(home.journal):
        damage.try_to_set_aside(home, home.journal, "cannot be read", "its entries are no longer shown")


def heal(home: Home, others: Iterable[Inspection] = ()) -> None:
    """Repair what is damaged; waits only shortly for other calls, which repair what they need themselves.

    Args:
        others: further files.
    """
    everything = [_device(home), *others, *(each for name in home.model_names() for each in _of(home, name))]
    broken = [inspection for inspection in everything if inspection.problem() is not None]
    models = [name for name in home.model_names() if _is_unlinked(home, name) or _is_stateless(home, name)]
    if not broken and not models:
        return
    try:
        with lock.hold(home, _WAIT_S):
            for inspection in broken:
                damage.repair(home, inspection)
            for name in models:
                heal_model(home, name)
    except AgentError as error:
        if not error.transient:
            raise
    except OSError as error:
        # The lock itself. The verb goes on: it may only read, and a damaged file counts as missing.
        for inspection in broken:
            problem = f"{inspection.problem()}; it was not replaced: {error.strerror}"
            damage.report(home, Damage(os.path.relpath(inspection.path, home.root), problem, "", None))


def heal_model(home: Home, model: str) -> None:
    """Repair the files of one model (lock held)."""
    for inspection in _of(home, model):
        damage.repair(home, inspection)
    if _is_unlinked(home, model):
        _relink(home, model)
    if _is_stateless(home, model) and _rebuild_state(home, model):
        path = os.path.relpath(states.path_of(home, model), home.root)
        damage.report(home, Damage(path, "is missing", _STATE_LOST, None))


def _device(home: Home) -> Inspection:
    def parse(body: object) -> object:
        return Fields(body).text("device_id")

    def repair() -> object:
        from edgeq_agent.telemetry import outbox  # here, so that a probe stays quick

        return identity.create(home, outbox.known_device_id(home))

    lost = "the device keeps its id where the outbox knows it, else it gets a new one"
    return Inspection(home.device, parse, lost, repair)


def _of(home: Home, model: str) -> list[Inspection]:
    def pin_all() -> None:
        releases = release_store.of_model(home, model)
        if releases:
            pins.replace(home, model, releases)

    kept = "every release of the model on the device is pinned now, so that none is removed"
    return [
        Inspection(
            states.path_of(home, model),
            lambda body: _with_state(StateRecord.from_json(model, body), body),
            _STATE_LOST,
            lambda: _rebuild_state(home, model),
        ),
        Inspection(pins.path_of(home, model), pins.parse, kept, pin_all),
        Inspection(
            candidates.path_of(home, model),
            candidates.parse,
            "the staged releases have to be staged again; " + kept,
            pin_all,
        ),
    ]


def _with_state(record: StateRecord, body: Json) -> StateRecord:
    if "state" not in body:  # no agent has written such a file
        raise ValueError("is damaged: it names no state")
    return record


def _rebuild_state(home: Home, model: str) -> bool:
    from edgeq_agent.activation import rebuild  # here, so that a probe stays quick

    record = rebuild.state(home, model)
    if record is not None:
        states.write(home, record)
    return record is not None


def _is_stateless(home: Home, model: str) -> bool:
    """Return whether a release serves of which no state is known."""
    return os.path.islink(_link(home, model)) and not os.path.lexists(states.path_of(home, model))


def _link(home: Home, model: str) -> str:
    return os.path.join(home.model(model), "current")


def _is_unlinked(home: Home, model: str) -> bool:
    """Return whether something that is not a link is in the place of the link `current`."""
    link = _link(home, model)
    return os.path.lexists(link) and not os.path.islink(link)


def _relink(home: Home, model: str) -> None:
    release = _serving(states.read(home, model))
    known = release is not None and os.path.isdir(home.release(release))
    lost = f"{str(release)[:12]} serves, as before" if known else "deploy the model again"
    try:
        damage.set_aside(home, _link(home, model), "is not a link", lost)
        if known:
            release_store.point(home, model, release)
    except OSError as error:
        damage.report_refusal(home, _link(home, model), "is not a link", error)


def _serving(record: StateRecord) -> str | None:
    """Return the release that serves in a state, as far as its state shows."""
    if record.state in (state_record.COMMITTED, state_record.SOAKING):
        return record.target
    return record.fallback


def _is_usable(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    # A disk that became read-only refuses to write to every file: this one is not damaged.
    modes = os.R_OK | os.W_OK if os.access(os.path.dirname(path), os.W_OK) else os.R_OK
    return os.access(path, modes)
