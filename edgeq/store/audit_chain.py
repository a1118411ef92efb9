"""The audit log's hash chain: each entry has the hash of the one before it; the last one is also kept apart.

A change, a removal or an insertion inside the chain breaks a hash. A removal at its end breaks none: the file
of the head shows it, as long as that file is not replaced too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgeq.errors import StoreError
from edgeq.files import write_atomic
from edgeq.store.schema import audit
from edgeq_agent import wire

HEAD_SCHEMA = "edgeq.audit-head/1"
# The action of the entry that is written when the head and the chain do not fit.
DAMAGED = "audit.damaged"
_HASHED = ("id", "at_ns", "actor", "host", "action", "subject", "command", "result", "body", "previous")
_UNCHAINED = ("id", "at_ns", "actor", "action", "subject", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry of the chain."""

    id: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """The result of a verification.

    Attributes:
        entries: how many entries the chain has.
        unchained: how many older ones there are, from before there was a chain; it covers them together.
        head: the last entry; None for an empty chain.
        problems: a line for each place that does not fit.
    """

    entries: int
    unchained: int
    head: Head | None
    problems: tuple[str, ...]


class AuditChain:
    """Appends entries to the chain of one store, one process at a time."""

    def __init__(self, store: Path) -> None:
        self._head = store.with_name("audit-head.json")
        self._lock = store.with_name("audit.lock")
        self._written: Head | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the chain for a transaction inside the block; its last entry becomes the head after that.

        Raises:
            StoreError: the lock cannot be opened, and nothing is written; or the head cannot be written.
        """
        with ExitStack() as held:
            try:
                stream = held.enter_context(self._lock.open("w"))
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError as error:
                raise _not_written(self._lock, error) from error
            self._written = None
            yield
            if self._written is not None:
                head = {"schema": HEAD_SCHEMA, "id": self._written.id, "sha256": self._written.sha256}
                try:
                    write_atomic(self._head, wire.canonical(head) + b"\n")
                except OSError as error:
                    raise _not_written(self._head, error) from error

    def append(self, connection: sa.Connection, entry: Mapping[str, Any]) -> int:
        """Add an entry inside a transaction of `writing`, and return its id.

        If the head and the chain do not fit, an entry that says so goes before it.
        """
        if self._written is None and (problem := self._problem(connection)):
            note = {"at_ns": entry["at_ns"], "actor": entry["actor"], "host": entry.get("host")}
            body = wire.canonical({}).decode()
            self._add(
                connection, {**note, "action": DAMAGED, "subject": "audit", "result": problem, "body": body}
            )
        return self._add(connection, entry)

    def read_head(self) -> Head | str | None:
        """Return the head that is kept apart, None if there is none, or why it cannot be read."""
        try:
            value = json.loads(self._head.read_bytes())
            return Head(id=int(value["id"]), sha256=str(value["sha256"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return f"{self._head.name} cannot be read ({type(error).__name__})"

    def _add(self, connection: sa.Connection, entry: Mapping[str, Any]) -> int:
        last = connection.execute(
            sa.select(audit.c.id, audit.c.sha256).order_by(audit.c.id.desc()).limit(1)
        ).first()
        if last is not None and last.sha256 is not None:
            previous = str(last.sha256)
        else:
            columns = [audit.c[name] for name in _UNCHAINED]
            older = connection.execute(sa.select(*columns).order_by(audit.c.id)).mappings()
            previous = digest_of_unchained([dict(row) for row in older])
        row = {**dict.fromkeys(_HASHED), **entry, "id": (last.id if last is not None else 0) + 1}
        row["previous"] = previous
        row["sha256"] = digest_of(row)
        connection.execute(audit.insert().values(**row))
        self._written = Head(id=row["id"], sha256=row["sha256"])
        return int(row["id"])

    def _problem(self, connection: sa.Connection) -> str:
        head = self.read_head()
        if isinstance(head, str):
            return head
        chained = sa.select(sa.func.count()).where(audit.c.sha256.is_not(None))
        if head is None:
            # A process may have ended between its first entry and the head.
            return f"{self._head.name} is missing" if connection.execute(chained).scalar_one() > 1 else ""
        known = connection.execute(sa.select(audit.c.sha256).where(audit.c.id == head.id)).scalar()
        return (
            ""
            if known == head.sha256
            else f"entry {head.id}, the last one of the head, is missing or changed"
        )


def _not_written(path: Path, error: OSError) -> StoreError:
    hint = "check the permissions and the free space of its folder, or choose another --workspace"
    return StoreError(str(path), f"cannot be written: {error.strerror}", hint=hint)


def digest_of(row: Mapping[str, Any]) -> str:
    """Return the hash of an entry, which covers the hash of the one before it."""
    return wire.digest({name: row[name] for name in _HASHED})


def _fits(row: Mapping[str, Any]) -> bool:
    try:
        return digest_of(row) == str(row["sha256"])
    except (TypeError, ValueError):  # a value that no entry has, such as bytes
        return False


def digest_of_unchained(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the hash that the first entry of the chain has of all older ones."""
    older = [[row[name] for name in _UNCHAINED] for row in rows]
    return hashlib.sha256(wire.canonical({"older": older})).hexdigest()


def check(
    rows: Sequence[Mapping[str, Any]], head: Head | str | None, *, known: str | None = None
) -> AuditCheck:
    """Verify the chain.

    Args:
        rows: all entries, by id.
        head: as `AuditChain.read_head` returns it.
        known: the hash of an entry that the caller has kept; it must be in the chain.
    """
    problems: list[str] = []
    first = next((at for at, row in enumerate(rows) if row["sha256"] is not None), len(rows))
    older, chain = rows[:first], rows[first:]
    try:
        previous = digest_of_unchained(older)
    except (TypeError, ValueError):
        previous = ""
        problems.append("an entry before the chain was changed: it has a value that no entry has")
    number = int(older[-1]["id"]) if older else 0
    for row in chain:
        where = f"entry {row['id']}"
        if row["sha256"] is None:
            problems.append(f"{where}: was inserted: it has no hash")
            continue
        if row["previous"] != previous:
            what = "the older entries have changed" if number == (older[-1]["id"] if older else 0) else ""
            problems.append(f"{where}: does not follow entry {number}{f': {what}' if what else ''}")
        elif row["id"] != number + 1:
            problems.append(f"{where}: expected entry {number + 1}")
        if not _fits(row):
            problems.append(f"{where}: was changed: its content does not match its hash")
        if row["action"] == DAMAGED:
            problems.append(f"{where}: when it was written, {row['result']}")
        previous, number = str(row["sha256"]), int(row["id"])
    hashes = {row["id"]: row["sha256"] for row in chain}
    if isinstance(head, str):
        problems.append(head)
    elif head is None and len(chain) > 1:
        problems.append("the file of the head is missing, so that a removal at the end cannot be seen")
    elif head is not None and hashes.get(head.id) != head.sha256:
        last = f"the last one is {number}" if head.id > number else "it has another hash"
        problems.append(f"the end was removed or changed: the head is entry {head.id}, {last}")
    if known is not None and known not in hashes.values():
        problems.append(f"no entry has the hash {known[:16]}...: entries were removed or changed")
    last_head = Head(id=number, sha256=previous) if chain else None
    return AuditCheck(entries=len(chain), unchained=len(older), head=last_head, problems=tuple(problems))
