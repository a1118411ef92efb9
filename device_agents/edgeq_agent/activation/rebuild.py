"""Rebuild the state of a model whose state file is damaged, from the link, the journal and the runtimes."""

from __future__ import annotations

from typing import Iterable

from edgeq_agent.activation import candidates, state_record
from edgeq_agent.activation.state_record import StateRecord
from edgeq_agent.calls.fields import SHA256
from edgeq_agent.errors import AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.storage import clock, journal
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

REBUILT = "state.json was damaged; this state was rebuilt"


def state(home: Home, model: str) -> StateRecord | None:
    """Return the state of the release that the link names.

    Returns:
        None when no release serves, or when nothing states which runtime it runs on: then the model has no
        state, and the next deploy gives it one.
    """
    current = release_store.current(home, model)
    if current is None:
        return None
    entries = [
        entry
        for entry in journal.everything(home)
        if entry.get("event") == "state" and entry.get("model") == model
    ]
    usable = [entry.digest for entry in registry.entries(home)]
    staged = {release: each.runtime for release, each in candidates.read(home, model).items()}
    history = tuple(
        release for release in history_before(current, _commits(entries)) if _is_complete(home, release)
    )
    runtimes = {}
    for release in (current, *history):
        runtime = _runtime(release, entries, staged, usable)
        if runtime is not None:
            runtimes[release] = runtime
    if current not in runtimes:
        return None
    return StateRecord(
        model,
        state=state_record.COMMITTED,
        entered=clock.now(),
        target=current,
        target_runtime=runtimes[current],
        target_history=history,
        runtimes=runtimes,
        history=history,
        reason=REBUILT,
    )


def history_before(current: str, commits: Iterable[str]) -> list[str]:
    """Return the releases that served before `current`, the latest last; pure.

    Args:
        commits: the releases that were committed, in their order; a rollback commits the one before again.
    """
    history: list[str] = []
    serving = None
    for release in (*commits, current):
        if release == serving:
            continue
        if history and history[-1] == release:
            history.pop()
        elif serving is not None:
            history = [each for each in (*history, serving) if each != release]
        serving = release
    return history


def _commits(entries: list[Json]) -> list[str]:
    committed = [entry for entry in entries if entry.get("state") == state_record.COMMITTED]
    releases = [str(entry.get("release")) for entry in committed]
    return [release for release in releases if SHA256.fullmatch(release)]


def _is_complete(home: Home, release: str) -> bool:
    try:
        return release_store.complete(home, release_store.read(home, release))
    except AgentError:
        return False


def _runtime(release: str, entries: list[Json], staged: dict[str, str], usable: list[str]) -> str | None:
    """Return the runtime that a release was checked with; where nothing states, the only one there is."""
    recorded = [entry.get("runtime") for entry in reversed(entries) if entry.get("release") == release]
    for runtime in (*recorded, staged.get(release)):
        if runtime in usable:
            return str(runtime)
    return usable[0] if len(usable) == 1 else None
