"""Counters of each release since boot (calls, errors, missed deadlines, crashes), which decide a soak.

`models/NAME/counters.json` is replaced as a whole by every process that runs the model, under its own lock:

    {"schema": "edgeq.counters/1", "boot_id": "...", "updated_ns": 1718000000000000000,
     "release": "<64 hex>",        whose counts the next five are: the release that `current` names
     "calls": 1042, "errors": 3, "errors_by_kind": {"invoke": 3}, "deadline_misses": 0, "crashes": 0,
     "releases": {"<64 hex>": {calls, errors, errors_by_kind, deadline_misses, crashes}, ...},
     "refused": {"<64 hex>": "EQ544: ..."},     releases that a runtime could not load; each is an error, too
     "processes": {"<process token>": "<64 hex>"},  those that run the model, and the release they serve
     "recorder": {failures, restarts, problem}}     of the runtimes' recorders

Counts only grow within one boot; those of another boot are ignored. A process that ended without `leave` is
a crash of the release that it served. The file is not synced: after a power cut the boot id differs, which
ends a soak anyway. A damaged file is renamed, and counting starts again.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Callable, Iterator, TypeVar

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.storage import clock, damage, disk, files, process_token
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.counters/1"
_KEPT_RELEASES = 8
_LARGEST = 2**63 - 1

T = TypeVar("T")


@dataclass(frozen=True)
class ReleaseCounts:
    """The counts of one release."""

    calls: int = 0
    errors: int = 0
    deadline_misses: int = 0
    crashes: int = 0

    @property
    def failures(self) -> int:
        """How many of the counted events speak against the release."""
        return self.errors + self.deadline_misses + self.crashes

    def to_json(self) -> Json:
        """Return the counts as a response has them."""
        return asdict(self)


@dataclass(frozen=True)
class Trouble:
    """What kept the recorders of a model's runtimes from storing.

    Attributes:
        failures: steps that failed.
        restarts: how often a recorder's thread was started again.
        problem: why the last tick did not store everything; empty when it did.
    """

    failures: int = 0
    restarts: int = 0
    problem: str = ""


NO_TROUBLE = Trouble()


@dataclass
class _Tally:
    """The counts of one release while they are changed."""

    calls: int = 0
    errors: int = 0
    errors_by_kind: dict[str, int] = field(default_factory=dict)
    deadline_misses: int = 0
    crashes: int = 0


class SharedCounters:
    """The content of a counters file while it is changed, under its lock."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._refused: dict[str, str] = {}
        self._processes: dict[str, str] = {}
        self.trouble = NO_TROUBLE

    def add_trouble(self, new: Trouble) -> None:
        """Add to the failures and restarts of the recorders; the problem is the latest."""
        before = self.trouble
        self.trouble = Trouble(before.failures + new.failures, before.restarts + new.restarts, new.problem)

    def add(self, release: str, *, calls: int = 0, deadline_misses: int = 0, crashes: int = 0) -> None:
        """Add to the counts of a release."""
        tally = self._tally(release)
        tally.calls += calls
        tally.deadline_misses += deadline_misses
        tally.crashes += crashes

    def add_errors(self, release: str, kind: str, count: int) -> None:
        """Add errors of a kind to the counts of a release."""
        tally = self._tally(release)
        if count:
            tally.errors += count
            tally.errors_by_kind[kind] = tally.errors_by_kind.get(kind, 0) + count

    def refuse(self, release: str, problem: str) -> None:
        """Note that a runtime could not load a release; a new problem counts as an error."""
        if self._refused.get(release) != problem:
            self._refused[release] = problem
            self.add_errors(release, "release", 1)

    def enter(self, token: str, release: str) -> None:
        """Note that a process runs the model with a release."""
        self._processes[token] = release

    def leave(self, token: str) -> None:
        """Note that a process has ended normally."""
        self._processes.pop(token, None)

    def forget(self, release: str) -> None:
        """Set the counts of a release to zero."""
        self._tallies.pop(release, None)
        self._refused.pop(release, None)

    def counts(self, release: str) -> ReleaseCounts:
        """Return the counts of a release."""
        tally = self._tallies.get(release, _Tally())
        return ReleaseCounts(tally.calls, tally.errors, tally.deadline_misses, tally.crashes)

    def _tally(self, release: str) -> _Tally:
        return self._tallies.setdefault(release, _Tally())

    @classmethod
    def parse(cls, fields: Fields) -> SharedCounters:
        """Return the content of a counters file; processes that died become crashes of their releases.

        Raises:
            AgentError: EQ512, a value is not of its type.
        """
        counters = cls()
        counters._tallies = _map(fields, "releases", _tally_of)
        counters._refused = _map(fields, "refused", Fields.text)
        recorder = fields.optional_object("recorder")
        counters.trouble = Trouble(
            failures=recorder.integer("failures", 0, _LARGEST, default=0),
            restarts=recorder.integer("restarts", 0, _LARGEST, default=0),
            problem=str(recorder.raw("problem") or ""),
        )
        for token, release in _map(fields, "processes", Fields.text).items():
            if process_token.alive(token):
                counters._processes[token] = release
            else:
                counters.add(release, crashes=1)
        return counters

    def to_json(self, current: str | None) -> Json:
        """Return the content of the counters file.

        Args:
            current: the release that the link `current` names.
        """
        kept = {current, *self._processes.values()}
        for release in [name for name in self._tallies if name not in kept][:-_KEPT_RELEASES]:
            self.forget(release)
        now = clock.now()
        of_current = self._tallies.get(current, _Tally()) if current else _Tally()
        return dict(
            asdict(of_current),
            schema=SCHEMA,
            boot_id=now.boot_id,
            updated_ns=clock.wall_ns(),
            release=current,
            releases={release: asdict(tally) for release, tally in self._tallies.items()},
            refused=self._refused,
            processes=self._processes,
            recorder=asdict(self.trouble),
        )


def _map(fields: Fields, name: str, read: Callable[[Fields, str], T]) -> dict[str, T]:
    return fields.map_of(name, read) if fields.has(name) else {}


def _tally_of(items: Fields, release: str) -> _Tally:
    fields = items.object(release)

    def count(name: str) -> int:
        return fields.integer(name, 0, _LARGEST, default=0)

    return _Tally(
        calls=count("calls"),
        errors=count("errors"),
        errors_by_kind=_map(fields, "errors_by_kind", lambda kinds, kind: kinds.integer(kind, 0, _LARGEST)),
        deadline_misses=count("deadline_misses"),
        crashes=count("crashes"),
    )


def add(
    home: Home,
    model: str,
    release: str,
    calls: int = 0,
    errors: int = 0,
    deadline_misses: int = 0,
    crashes: int = 0,
) -> None:
    """Add to the counts of a release."""
    with changing(home, model, release) as counters:
        counters.add(release, calls=calls, deadline_misses=deadline_misses, crashes=crashes)
        counters.add_errors(release, "inference", errors)


def enter(home: Home, model: str, release: str) -> None:
    """Note that this process runs the model; when it ends without `leave`, that is a crash."""
    with changing(home, model, release) as counters:
        counters.enter(process_token.token(), release)


def leave(home: Home, model: str, release: str) -> None:
    """Note that this process ends normally."""
    with changing(home, model, release) as counters:
        counters.leave(process_token.token())


def read(home: Home, model: str, release: str) -> ReleaseCounts:
    """Return the counts of a release."""
    return _read(home, model)[0].counts(release)


def read_trouble(home: Home, model: str) -> Trouble:
    """Return what kept the recorders of a model from storing since the boot."""
    return _read(home, model)[0].trouble


def clear(home: Home, model: str, release: str) -> None:
    """Set the counts of a release to zero before its next soak."""
    if os.path.exists(_path(home, model)):
        with changing(home, model, release) as counters:
            counters.forget(release)


@contextmanager
def changing(home: Home, model: str, release: str | None) -> Iterator[SharedCounters]:
    """Lock and load the counters for a `with` block, and write them at its end.

    Args:
        release: the release that the link `current` names.

    Raises:
        OSError: the disk refuses; the file is unchanged.
    """
    with disk.update(_lock_path(home, model)) as held:
        # The kernel releases it with the process. It is held for one small write, so no deadline is needed.
        fcntl.flock(held.descriptor, fcntl.LOCK_EX)
        with _unlocked_at_end(held):
            counters = _load(home, model)
            yield counters
            _store(home, model, counters, release)


@contextmanager
def trying(home: Home, model: str, release: str | None) -> Iterator[SharedCounters | None]:
    """Do as `changing`, but yield None at once when another process holds the lock."""
    with disk.update(_lock_path(home, model)) as held:
        try:
            fcntl.flock(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        with _unlocked_at_end(held):
            counters = _load(home, model)
            yield counters
            _store(home, model, counters, release)


@contextmanager
def _unlocked_at_end(held: disk.File) -> Iterator[None]:
    """Release the lock also for a process that was forked meanwhile: it inherited the descriptor."""
    try:
        yield
    finally:
        fcntl.flock(held.descriptor, fcntl.LOCK_UN)


def _path(home: Home, model: str) -> str:
    return os.path.join(home.model(model), "counters.json")


def _lock_path(home: Home, model: str) -> str:
    return _path(home, model) + ".lock"


def _load(home: Home, model: str) -> SharedCounters:
    """Return the content of the file, whose lock is held; a damaged file is renamed."""
    counters, problem = _read(home, model)
    if problem is not None:
        lost = "what was counted since the boot is lost, also for a soak; counting starts again"
        damage.set_aside(home, _path(home, model), problem, lost)
    return counters


def _read(home: Home, model: str) -> tuple[SharedCounters, str | None]:
    """Return the content of the file, and what is wrong with it; a damaged file counts as empty."""
    try:
        fields = Fields(files.read_json(_path(home, model)))
        fields.one_of("schema", (SCHEMA,))
        if fields.raw("boot_id") != clock.now().boot_id:
            return SharedCounters(), None
        return SharedCounters.parse(fields), None
    except FileNotFoundError:
        return SharedCounters(), None
    except AgentError as error:
        return SharedCounters(), f"is not {SCHEMA}: {error.subject}"
    except ValueError as error:
        return SharedCounters(), f"is damaged: {error}"


def _store(home: Home, model: str, counters: SharedCounters, current: str | None) -> None:
    files.write_json(_path(home, model), counters.to_json(current), durable=False)
