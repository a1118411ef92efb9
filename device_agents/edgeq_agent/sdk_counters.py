"""Counters of a model's calls, errors and crashes on this boot: what an activation's soak may read.

`models/NAME/counters.json`, replaced atomically and at most once a second by each runtime of the model:

    {"schema": "edgeq.counters/1", "boot_id": "...", "updated_ns": 1718000000000000000,
     "release": "<64 hex>",        what `current` names; the five below are this release's
     "calls": 1042, "errors": 3, "errors_by_kind": {"invoke": 3}, "deadline_misses": 0, "crashes": 0,
     "releases": {"<64 hex>": {calls, errors, errors_by_kind, deadline_misses, crashes}, ...},
     "refused": {"<64 hex>": "EQ544: ..."},       releases that a runtime did not take; also an error each
     "processes": {"<pid>:<start>": "<64 hex>"}}  the runtimes that are alive, and what they serve

The numbers only grow within one boot; another `boot_id` voids all of them. A process that is gone from the
system and did not take its leave is a crash of the release that it served. Not synced to the disk: after a
power cut the boot is another and the file void in any case. A reader takes a file without JSON for none.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from typing import Any, Iterator

from edgeq_agent import device, files
from edgeq_agent.home import Home
from edgeq_agent.sdk_ledger import Totals
from edgeq_agent.wire import Json

SCHEMA = "edgeq.counters/1"
_KEPT_RELEASES = 8


class Counters:
    """One runtime's part in a model's counters."""

    def __init__(self, place: Home, model: str) -> None:
        self._path = os.path.join(place.model(model), "counters.json")
        self._lock = os.path.join(place.model(model), ".counters.lock")
        self._boot_id = device.boot_id()
        self._me = process_name(os.getpid())
        self._told: dict[str, Totals] = {}
        self._last: Any = None

    def tell(
        self, current: str | None, serves: str | None, totals: dict[str, Totals], refused: dict[str, str]
    ) -> bool:
        """Add what is new since the last time; tell whether it was written (another runtime may be at it).

        Args:
            current: the release that the link names.
            serves: the release that this process answers with; None takes leave.
            totals: by release, counted since this runtime began.
        """
        state = (current, serves, dict(refused), {name: vars(count) for name, count in totals.items()})
        if state == self._last:
            return True
        with self._held() as held:
            if not held:
                return False
            body = self._read()
            releases = body["releases"]
            for release, count in totals.items():
                _add(releases.setdefault(release, _zero()), count, self._told.get(release, Totals()))
            for release, problem in refused.items():
                if body["refused"].get(release) != problem:
                    body["refused"][release] = problem
                    _error(releases.setdefault(release, _zero()), "release", 1)
            self._processes(body, serves)
            self._write(body, current)
        self._told = {name: Totals(count.calls, count.late, count.errors) for name, count in totals.items()}
        self._last = state
        return True

    def _processes(self, body: Json, serves: str | None) -> None:
        for name, release in list(body["processes"].items()):
            if name != self._me and not _alive(name):
                del body["processes"][name]
                body["releases"].setdefault(release, _zero())["crashes"] += 1
        body["processes"].pop(self._me, None)
        if serves is not None:
            body["processes"][self._me] = serves

    def _write(self, body: Json, current: str | None) -> None:
        releases = body["releases"]
        keep = {current, *body["processes"].values()}
        for release in [name for name in releases if name not in keep][:-_KEPT_RELEASES]:
            del releases[release]
            body["refused"].pop(release, None)
        body.update(schema=SCHEMA, boot_id=self._boot_id, updated_ns=time.time_ns(), release=current)
        body.update(releases.get(current, _zero()) if current else _zero())
        temporary = f"{self._path}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="utf-8") as stream:
                json.dump(body, stream)
            os.replace(temporary, self._path)
        except BaseException:
            files.remove(temporary)
            raise

    def _read(self) -> Json:
        try:
            body = files.read_json(self._path)
        except (FileNotFoundError, ValueError):
            body = None
        if not isinstance(body, dict) or body.get("schema") != SCHEMA or body["boot_id"] != self._boot_id:
            body = {}
        return {name: dict(body.get(name) or {}) for name in ("releases", "refused", "processes")}

    @contextmanager
    def _held(self) -> Iterator[bool]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def process_name(pid: int) -> str:
    """Return `pid:start`, which no later process of that number bears; `pid:` where the kernel hides it."""
    stat = device.read_text(f"/proc/{pid}/stat")
    # The name of the program may hold spaces and brackets; what follows the last bracket may not.
    fields = stat.rpartition(")")[2].split() if stat else []
    return f"{pid}:{fields[19]}" if len(fields) > 19 else f"{pid}:"


def _alive(name: str) -> bool:
    pid = int(name.partition(":")[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = device.read_text(f"/proc/{pid}/stat")
    zombie = bool(stat) and str(stat).rpartition(")")[2].split()[:1] == ["Z"]
    return process_name(pid) == name and not zombie


def _zero() -> Json:
    return {"calls": 0, "errors": 0, "errors_by_kind": {}, "deadline_misses": 0, "crashes": 0}


def _add(known: Json, now: Totals, before: Totals) -> None:
    known["calls"] += now.calls - before.calls
    known["deadline_misses"] += now.late - before.late
    for kind, count in now.errors.items():
        _error(known, kind, count - before.errors.get(kind, 0))


def _error(known: Json, kind: str, count: int) -> None:
    if count:
        known["errors"] += count
        known["errors_by_kind"][kind] = known["errors_by_kind"].get(kind, 0) + count
