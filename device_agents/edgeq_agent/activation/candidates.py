"""Releases that were proved here and do not serve as `current`: what an A/B split may name.

`models/NAME/staged.json`; each entry keeps its release, blobs and runtime from `prune`:

    {"schema": "edgeq.staged/1",
     "releases": {"<64 hex>": {"runtime": "<64 hex>", "counter": 7, "health": {...}, "since_ns": 1718...}}}

A split counts under the release that served when it was set. When another one is committed, the split is over
and is taken away here; while a release serves on trial it waits, and counts again if the trial fails.
"""

from __future__ import annotations

import os
from typing import Any

from edgeq_agent.activation import states
from edgeq_agent.activation.states import ModelState
from edgeq_agent.calls import request
from edgeq_agent.errors import one_line
from edgeq_agent.releases import release_store
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import SplitUnusable
from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.staged/1"
# As many as a split has arms; each costs the room of a release.
MOST = 8


def read(home: Home, model: str) -> dict[str, Json]:
    """Return the staged releases of a model, oldest first; where the file is damaged, none.

    What a damaged file kept is kept all the same: see `references`.
    """
    try:
        return _entries(home, model)
    except ValueError:
        return {}


def damaged(home: Home, model: str) -> bool:
    """Tell whether the file is there and says nothing that can be read."""
    try:
        _entries(home, model)
    except ValueError:
        return True
    return False


def _entries(home: Home, model: str) -> dict[str, Json]:
    try:
        body = files.read_json(path_of(home, model))
    except FileNotFoundError:
        return {}
    found = body.get("releases") if isinstance(body, dict) and body.get("schema") == SCHEMA else None
    if not isinstance(found, dict) or not all(map(_is_entry, found.items())):
        raise ValueError("no " + SCHEMA)
    return found


def _is_entry(item: tuple[str, Any]) -> bool:
    release, entry = item
    return (
        request.SHA256.fullmatch(release) is not None
        and isinstance(entry, dict)
        and request.SHA256.fullmatch(str(entry.get("runtime"))) is not None
        and isinstance(entry.get("counter"), int)
        and isinstance(entry.get("health"), dict)
    )


def write(home: Home, model: str, entries: dict[str, Json]) -> None:
    """Replace the staged releases of a model, durably."""
    files.write_json(path_of(home, model), {"schema": SCHEMA, "releases": entries})


def path_of(home: Home, model: str) -> str:
    """Return where a model's staged releases are noted."""
    return os.path.join(home.model(model), "staged.json")


def runtime_of(home: Home, model: str, release: str) -> str | None:
    """Return the runtime that a release was proved with last: it serves, is staged, or did serve before."""
    entry = None if release == release_store.current(home, model) else read(home, model).get(release)
    # One that served long ago and is staged now: nothing keeps the runtime that it had then.
    return str(entry["runtime"]) if entry else states.load(home, model).runtime_of(release)


def in_force(home: Home, model: str) -> ab_split.Split | None:
    """Return the split that is served, or None.

    Raises:
        SplitUnusable: EQ546, the file describes none.
    """
    found = ab_split.read(home, model)
    return found if found is not None and found.counts_under(release_store.current(home, model)) else None


def told(home: Home, model: str) -> Json:
    """Return what an answer says of a model's split and staged releases."""
    entries = read(home, model)
    try:
        found = ab_split.read(home, model)
    except SplitUnusable as error:
        return {"split": {"problem": one_line(error)}, "in_force": False, "staged": entries}
    counts = found is not None and found.counts_under(release_store.current(home, model))
    return {"split": found.body() if found else None, "in_force": counts, "staged": entries}


def settle(home: Home, state: ModelState) -> None:
    """Take away a split that is over, and the note of a staged release that serves now (lock held)."""
    if state.state in states.PENDING:
        return  # the release that serves is on trial: what was before may come back
    current = release_store.current(home, state.model)
    try:
        found = ab_split.read(home, state.model)
    except SplitUnusable:
        found = None  # nobody serves it; `split` writes it anew or clears it
    if found is not None and not found.counts_under(current):
        ab_split.remove(home, state.model)
    entries = read(home, state.model)
    if current in entries:
        write(home, state.model, {name: entry for name, entry in entries.items() if name != current})
