"""Rollouts on disk: `.edgeq/rollouts/ID/` with the bundle, the journal, the lease and what was asked for."""

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
from edgeq.fleet.rollout.journal import Journal
from edgeq.fleet.rollout.spec import Terms
from edgeq.fleet.rollout.state import Rollout, State, TransitionError
from edgeq.version import VERSION

BUNDLE = "bundle.eqb"
_REQUEST = "request"
_OVER = frozenset({State.DONE, State.ABORTED, State.ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A rollout whose lease this process holds."""

    folder: Path
    rollout: Rollout
    journal: Journal

    def request(self) -> str | None:
        """Return what another process asked for: `pause` or `abort`."""
        try:
            return (self.folder / _REQUEST).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None


@contextmanager
def begin(workspace: Path, *, name: str, bundle: bytes, agree: Callable[[str], Terms]) -> Iterator[Opened]:
    """Begin a rollout, and hold its lease for the length of the `with` block.

    Args:
        name: what its id begins with.
        bundle: the bundle's bytes; a copy is kept, so that the rollout can go on without the file.
        agree: makes the terms for an id.

    Raises:
        RolloutError: another rollout of the model to one of the devices is not finished (EQ823).
        UsageError: the terms cannot be met.
    """
    root = _root(workspace)
    root.mkdir(parents=True, exist_ok=True)
    # Held only while it is made: two that begin at once must see each other.
    with (root / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        terms = agree(next_id(workspace, name))
        _check_others(workspace, terms)
        folder = root / terms.rollout
        folder.mkdir(mode=0o700)
        sync_folder(root)
        write_atomic(folder / BUNDLE, bundle, mode=0o600)
        with lease.hold(folder, name=terms.rollout):
            book, _ = Journal.open(folder / journal.FILE_NAME)
            book.append([{"event": "created", "edgeq": VERSION, **terms.to_dict()}])
            fcntl.flock(stream, fcntl.LOCK_UN)
            yield Opened(folder=folder, rollout=Rollout(terms), journal=book)


@contextmanager
def reopen(workspace: Path, rollout_id: str) -> Iterator[Opened]:
    """Become the controller of a rollout for the length of the `with` block; old requests are forgotten.

    Raises:
        UnknownName: there is no such rollout.
        RolloutBusy: another controller has it.
        RolloutDamaged: its journal was changed.
    """
    folder = _find(workspace, rollout_id)
    with lease.hold(folder, name=rollout_id):
        book, entries = Journal.open(folder / journal.FILE_NAME)
        (folder / _REQUEST).unlink(missing_ok=True)
        yield Opened(folder=folder, rollout=fold(folder, entries), journal=book)


def read(workspace: Path, rollout_id: str) -> Rollout:
    """Return a rollout as its journal has it now; needs no lease.

    Raises:
        UnknownName: there is no such rollout.
        RolloutDamaged: its journal was changed.
    """
    folder = _find(workspace, rollout_id)
    return fold(folder, journal.read(folder / journal.FILE_NAME))


def read_all(workspace: Path) -> list[Rollout | RolloutDamaged]:
    """Return all rollouts, oldest first; of one that cannot be read, the error."""
    found: list[Rollout | RolloutDamaged] = []
    for name in _names(workspace):
        try:
            found.append(read(workspace, name))
        except RolloutDamaged as error:
            found.append(error)
    return found


def ask(workspace: Path, rollout_id: str, what: str) -> None:
    """Leave a request for the controller of a rollout: `pause` or `abort`."""
    write_atomic(_find(workspace, rollout_id) / _REQUEST, what.encode(), mode=0o600)


def next_id(workspace: Path, name: str) -> str:
    """Return the id that a rollout begun now would get."""
    number, root = 1, _root(workspace)
    while (root / f"{name}-{number}").exists():
        number += 1
    return f"{name}-{number}"


def _root(workspace: Path) -> Path:
    return workspace / ".edgeq" / "rollouts"


def _names(workspace: Path) -> list[str]:
    # A folder without a journal is one whose controller died before the rollout began.
    found = [path for path in _root(workspace).glob(f"*/{journal.FILE_NAME}") if journal.read_bytes(path)]
    return [path.parent.name for path in sorted(found, key=lambda path: path.parent.stat().st_ctime_ns)]


def _find(workspace: Path, rollout_id: str) -> Path:
    if rollout_id not in _names(workspace):
        hint = "`edgeq rollout list` shows the rollouts"
        raise unknown("rollout", rollout_id, _names(workspace), hint=hint)
    return _root(workspace) / rollout_id


def fold(folder: Path, entries: Sequence[dict[str, Any]]) -> Rollout:
    """Return the rollout that a journal's entries make.

    Raises:
        RolloutDamaged: an entry cannot follow from those before it; names its line.
    """
    path = folder / journal.FILE_NAME
    at = 1
    try:
        rollout = Rollout(Terms.from_dict(entries[0]))
        for entry in entries[1:]:
            at += 1
            rollout.apply(entry)
    except (KeyError, TypeError, ValueError, IndexError, UsageError, TransitionError) as error:
        problem = f"no entry that can stand here ({type(error).__name__}: {error})"
        raise RolloutDamaged(f"{path}: line {at}", problem) from error
    return rollout


def _check_others(workspace: Path, terms: Terms) -> None:
    for other in read_all(workspace):
        if isinstance(other, RolloutDamaged) or other.state in _OVER or other.terms.model != terms.model:
            continue
        shared = sorted(set(other.terms.devices) & set(terms.devices))
        if shared:
            name = other.terms.rollout
            raise RolloutError(
                terms.model,
                f"rollout {name} to {len(shared)} of these devices ({shared[0]}) is {other.state.value}",
                hint=f"`edgeq rollout resume {name}` finishes it, `edgeq rollout abort {name}` gives it up",
                code="EQ823",
            )
