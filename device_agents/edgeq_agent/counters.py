"""What a release did while it serves: calls, errors, deadline misses and crashes; the soak decides by them.

One small file a model, `models/<name>/counters.json`, that every process which runs the model adds to under a
lock of its own. It is replaced whole but not synced: a power cut ends the soak in any case.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import Iterator

from edgeq_agent import clock, disk, files, process
from edgeq_agent.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.counters/1"
FAILURES = ("errors", "deadline_misses", "crashes")
NAMES = ("calls", *FAILURES)


def add(
    home: Home,
    model: str,
    release: str,
    calls: int = 0,
    errors: int = 0,
    deadline_misses: int = 0,
    crashes: int = 0,
) -> None:
    """Add to a release's counts. Counts of another release, or of an earlier boot, are dropped."""
    more = {"calls": calls, "errors": errors, "deadline_misses": deadline_misses, "crashes": crashes}
    with _changing(home, model, release) as body:
        for name in NAMES:
            body[name] += more[name]


def enter(home: Home, model: str, release: str) -> None:
    """Say that this process runs the model from now on: when it dies without `leave`, that is a crash."""
    with _changing(home, model, release) as body:
        body["running"] = [*body["running"], process.token()]


def leave(home: Home, model: str, release: str) -> None:
    """Say that this process ends in peace."""
    with _changing(home, model, release) as body:
        body["running"] = [token for token in body["running"] if token != process.token()]


def read(home: Home, model: str, release: str) -> Json:
    """Return the counts of a release; a process that died without `leave` counts as a crash."""
    body = _buried(_load(home, model, release))
    return {name: body[name] for name in NAMES}


def clear(home: Home, model: str) -> None:
    """Forget all counts of a model."""
    files.remove(_path(home, model))


def failures(counts: Json) -> int:
    """Return how many of the counted things speak against the release."""
    return sum(int(counts[name]) for name in FAILURES)


def _path(home: Home, model: str) -> str:
    return os.path.join(home.model(model), "counters.json")


@contextmanager
def _changing(home: Home, model: str, release: str) -> Iterator[Json]:
    with disk.update(_path(home, model) + ".lock") as held:
        # The kernel frees it with the process. Held for one small write: no deadline is needed.
        fcntl.flock(held.descriptor, fcntl.LOCK_EX)
        body = _buried(_load(home, model, release))
        yield body
        files.write_json(_path(home, model), body, durable=False)


def _load(home: Home, model: str, release: str) -> Json:
    boot_id = clock.now().boot_id
    fresh = dict({name: 0 for name in NAMES}, schema=SCHEMA, release=release, boot_id=boot_id, running=[])
    try:
        body = files.read_json(_path(home, model))
    except (FileNotFoundError, ValueError):  # never written, or cut by a power loss
        return fresh
    same = isinstance(body, dict) and (body.get("release"), body.get("boot_id")) == (release, boot_id)
    return body if same and set(fresh) <= set(body) else fresh


def _buried(body: Json) -> Json:
    dead = [token for token in body["running"] if not process.alive(token)]
    running = [token for token in body["running"] if token not in dead]
    return dict(body, crashes=body["crashes"] + len(dead), running=running)
