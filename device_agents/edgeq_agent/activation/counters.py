"""What releases did on this boot: calls, errors, missed deadlines, crashes; a soak decides by them.

`models/NAME/counters.json`, replaced whole by every process that runs the model, under a lock of its own:

    {"schema": "edgeq.counters/1", "boot_id": "...", "updated_ns": 1718000000000000000,
     "release": "<64 hex>",        whose the five below are: what `current` names
     "calls": 1042, "errors": 3, "errors_by_kind": {"invoke": 3}, "deadline_misses": 0, "crashes": 0,
     "releases": {"<64 hex>": {calls, errors, errors_by_kind, deadline_misses, crashes}, ...},
     "refused": {"<64 hex>": "EQ544: ..."},     releases that a runtime did not take; also an error each
     "processes": {"<process token>": "<64 hex>"}}  those that run the model, and what they serve

The numbers only grow within one boot; another boot's are void. A process that is gone and did not take its
leave is a crash of the release that it served. Not synced to the disk: a power cut ends a soak in any case,
and after it the boot is another. A file that holds no JSON counts for none.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import Iterator

from edgeq_agent.storage import clock, disk, files, process_token
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.counters/1"
FAILURES = ("errors", "deadline_misses", "crashes")
NAMES = ("calls", *FAILURES)
_KEPT_RELEASES = 8


def add(
    home: Home,
    model: str,
    release: str,
    calls: int = 0,
    errors: int = 0,
    deadline_misses: int = 0,
    crashes: int = 0,
) -> None:
    """Add to a release's counts."""
    more = {"calls": calls, "deadline_misses": deadline_misses, "crashes": crashes}
    with changing(home, model, release) as body:
        known = of(body, release)
        for name, count in more.items():
            known[name] += count
        add_errors(known, "inference", errors)


def enter(home: Home, model: str, release: str) -> None:
    """Say that this process runs the model from now on: when it dies without `leave`, that is a crash."""
    with changing(home, model, release) as body:
        body["processes"][process_token.token()] = release


def leave(home: Home, model: str, release: str) -> None:
    """Say that this process ends in peace."""
    with changing(home, model, release) as body:
        body["processes"].pop(process_token.token(), None)


def read(home: Home, model: str, release: str) -> Json:
    """Return the counts of a release; a process that died without `leave` counts as a crash."""
    known = of(_load(home, model), release)
    return {name: known[name] for name in NAMES}


def clear(home: Home, model: str, release: str) -> None:
    """Forget what a release did: its next trial begins at nothing."""
    if os.path.exists(_path(home, model)):
        with changing(home, model, release) as body:
            body["releases"].pop(release, None)
            body["refused"].pop(release, None)


def failures(counts: Json) -> int:
    """Return how many of the counted things speak against the release."""
    return sum(int(counts[name]) for name in FAILURES)


def of(body: Json, release: str) -> Json:
    """Return a release's counts inside a body; they can be added to."""
    known: Json = body["releases"].setdefault(release, _nothing())
    return known


def add_errors(known: Json, kind: str, count: int) -> None:
    """Add errors of a kind to a release's counts."""
    if count:
        known["errors"] += count
        known["errors_by_kind"][kind] = known["errors_by_kind"].get(kind, 0) + count


@contextmanager
def changing(home: Home, model: str, release: str | None) -> Iterator[Json]:
    """Let a `with` block change the counts, which are written at its end.

    Args:
        release: what `current` names.

    Raises:
        OSError: the disk refuses; the file is as before.
    """
    with disk.update(_lock(home, model)) as held:
        # The kernel frees it with the process. Held for one small write: no deadline is needed.
        fcntl.flock(held.descriptor, fcntl.LOCK_EX)
        body = _load(home, model)
        yield body
        _store(home, model, body, release)


@contextmanager
def trying(home: Home, model: str, release: str | None) -> Iterator[Json | None]:
    """As `changing`, but None at once where another process is at it."""
    with disk.update(_lock(home, model)) as held:
        try:
            fcntl.flock(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        body = _load(home, model)
        yield body
        _store(home, model, body, release)


def _path(home: Home, model: str) -> str:
    return os.path.join(home.model(model), "counters.json")


def _lock(home: Home, model: str) -> str:
    return _path(home, model) + ".lock"


def _nothing() -> Json:
    return {"calls": 0, "errors": 0, "errors_by_kind": {}, "deadline_misses": 0, "crashes": 0}


def _load(home: Home, model: str) -> Json:
    try:
        body = files.read_json(_path(home, model))
    except (FileNotFoundError, ValueError):  # never written, or cut by a power loss
        body = None
    boot_id = clock.now().boot_id
    if not isinstance(body, dict) or (body.get("schema"), body.get("boot_id")) != (SCHEMA, boot_id):
        body = {}
    parts = {name: body.get(name) for name in ("releases", "refused", "processes")}
    found: Json = {name: dict(part) if isinstance(part, dict) else {} for name, part in parts.items()}
    found["releases"] = {
        name: dict(_nothing(), **known)
        for name, known in found["releases"].items()
        if isinstance(known, dict)
    }
    for token, release in list(found["processes"].items()):
        if not process_token.alive(token):
            del found["processes"][token]
            of(found, release)["crashes"] += 1
    return found


def _store(home: Home, model: str, body: Json, current: str | None) -> None:
    releases = body["releases"]
    keep = {current, *body["processes"].values()}
    for release in [name for name in releases if name not in keep][:-_KEPT_RELEASES]:
        del releases[release]
        body["refused"].pop(release, None)
    now = clock.now()
    body.update(schema=SCHEMA, boot_id=now.boot_id, updated_ns=clock.wall_ns(), release=current)
    body.update(releases.get(current, _nothing()) if current else _nothing())
    files.write_json(_path(home, model), body, durable=False)
