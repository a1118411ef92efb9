"""Rollouts on disk: `.edgeq/rollouts/ID/` with the bundle, the journal, the lease and a request."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import RolloutDamaged, RolloutError, UsageError
from edgeq.files import sync_folder, write_atomic
from edgeq.fleet.names import unknown
from edgeq.fleet.rollout import journal, lease
from edgeq.fleet.rollout.events import Event, parse_event
from edgeq.fleet.rollout.journal import Journal
from edgeq.fleet.rollout.spec import RolloutSpec
from edgeq.fleet.rollout.state import Rollout, RolloutState, TransitionError
from edgeq.version import VERSION

BUNDLE = "bundle.eqb"
_REQUEST = "request"
_OVER = frozenset({RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRollout:
    """A rollout whose lease this process holds."""

    folder: Path
    rollout: Rollout
    journal: Journal

    def request(self) -> str | None:
        """Return what another process requested, `pause` or `abort`, or None."""
        try:
            return (self.folder / _REQUEST).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None

    def append(self, event: Event) -> None:
        """Apply an event and add it to the journal."""
        self.rollout.apply(event)
        self.journal.append([event.to_json()])


@contextmanager
def begin(
    workspace: Path, *, name: str, bundle: bytes, make_spec: Callable[[str], RolloutSpec]
) -> Iterator[OpenRollout]:
    """Begin a rollout, and hold its lease for the duration of the `with` block.

    Args:
        name: the start of its id.
        bundle: the bundle's bytes; a copy is kept, so that the rollout does not depend on the file.
        make_spec: returns the spec for an id.

    Raises:
        RolloutError: another rollout of the model to one of the devices is not finished (EQ823).
        UsageError: the spec is invalid.
    """
    root = _root(workspace)
    root.mkdir(parents=True, exist_ok=True)
    # Held only while the rollout is created: two that begin at once must see each other.
    with (root / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        spec = make_spec(next_id(workspace, name))
        _check_others(workspace, spec)
        folder = root / spec.rollout
        folder.mkdir(mode=0o700)
        sync_folder(root)
        write_atomic(folder / BUNDLE, bundle, mode=0o600)
        with lease.hold(folder, name=spec.rollout):
            book, _ = Journal.open(folder / journal.FILE_NAME)
            book.append([{"event": "created", "edgeq": VERSION, **spec.to_dict()}])
            fcntl.flock(stream, fcntl.LOCK_UN)
            yield OpenRollout(folder=folder, rollout=Rollout(spec), journal=book)


@contextmanager
def reopen(workspace: Path, rollout_id: str) -> Iterator[OpenRollout]:
    """Become the controller of a rollout for the duration of the `with` block; old requests are discarded.

    Raises:
        UnknownName: there is no such rollout.
        RolloutBusy: another controller holds its lease.
        RolloutDamaged: its journal was changed.
    """
    folder = _find(workspace, rollout_id)
    with lease.hold(folder, name=rollout_id):
        book, entries = Journal.open(folder / journal.FILE_NAME)
        (folder / _REQUEST).unlink(missing_ok=True)
        yield OpenRollout(folder=folder, rollout=fold(folder, entries), journal=book)


def read(workspace: Path, rollout_id: str) -> Rollout:
    """Return a rollout as recorded in its journal; needs no lease.

    Raises:
        UnknownName: there is no such rollout.
        RolloutDamaged: its journal was changed.
    """
    folder = _find(workspace, rollout_id)
    return fold(folder, journal.read(folder / journal.FILE_NAME))


def read_all(workspace: Path) -> list[Rollout | RolloutDamaged]:
    """Return all rollouts, oldest first; for one that cannot be read, the error."""
    rollouts: list[Rollout | RolloutDamaged] = []
    for name in _names(workspace):
        try:
            rollouts.append(read(workspace, name))
        except RolloutDamaged as error:
            rollouts.append(error)
    return rollouts


def ask(workspace: Path, rollout_id: str, what: str) -> None:
    """Leave a request for the controller of a rollout: `pause` or `abort`."""
    write_atomic(_find(workspace, rollout_id) / _REQUEST, what.encode(), mode=0o600)


def next_id(workspace: Path, name: str) -> str:
    """Return the id that a new rollout would get now."""
    number, root = 1, _root(workspace)
    while (root / f"{name}-{number}").exists():
        number += 1
    return f"{name}-{number}"


def _root(workspace: Path) -> Path:
    return workspace / ".edgeq" / "rollouts"


def _names(workspace: Path) -> list[str]:
    # In a folder without a journal the controller died before the rollout began.
    journals = [path for path in _root(workspace).glob(f"*/{journal.FILE_NAME}") if journal.read_bytes(path)]
    return [path.parent.name for path in sorted(journals, key=lambda path: path.parent.stat().st_ctime_ns)]


def _find(workspace: Path, rollout_id: str) -> Path:
    if rollout_id not in _names(workspace):
        hint = "`edgeq rollout list` shows the rollouts"
        raise unknown("rollout", rollout_id, _names(workspace), hint=hint)
    return _root(workspace) / rollout_id


def fold(folder: Path, entries: Sequence[dict[str, Any]]) -> Rollout:
    """Return the rollout after all entries of a journal.

    Raises:
        RolloutDamaged: an entry cannot follow those before it; names its line.
    """
    path = folder / journal.FILE_NAME
    at = 1
    try:
        rollout = Rollout(RolloutSpec.from_dict(entries[0]))
        for entry in entries[1:]:
            at += 1
            rollout.apply(parse_event(entry))
    except (KeyError, TypeError, ValueError, IndexError, UsageError, TransitionError) as error:
        problem = f"this entry cannot follow those before it ({type(error).__name__}: {error})"
        raise RolloutDamaged(f"{path}: line {at}", problem) from error
    return rollout


def _check_others(workspace: Path, spec: RolloutSpec) -> None:
    for other in read_all(workspace):
        if isinstance(other, RolloutDamaged) or other.state in _OVER or other.spec.model != spec.model:
            continue
        shared = sorted(set(other.spec.devices) & set(spec.devices))
        if shared:
            name = other.spec.rollout
            raise RolloutError(
                spec.model,
                f"rollout {name} to {len(shared)} of these devices ({shared[0]}) is {other.state.value}",
                hint=f"`edgeq rollout resume {name}` continues it, `edgeq rollout abort {name}` ends it",
                code="EQ823",
            )
