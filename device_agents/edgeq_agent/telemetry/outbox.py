"""The outbox: keep windows in SQLite until the host acknowledges them; when full, merge neighbours."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator, NamedTuple

from edgeq_agent import wire
from edgeq_agent.platforms import identity
from edgeq_agent.storage import clock, disk
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import Window, parse, to_json

CAP = 2000
_MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE boots (boot TEXT PRIMARY KEY, last_seq INTEGER NOT NULL);
    CREATE TABLE windows (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        boot TEXT NOT NULL, seq INTEGER NOT NULL, model TEXT NOT NULL, release TEXT NOT NULL,
        merged INTEGER NOT NULL, sent INTEGER NOT NULL DEFAULT 0, body TEXT NOT NULL,
        UNIQUE (boot, seq)
    );
    """,
)


class OutboxSummary(NamedTuple):
    """What an outbox holds.

    Attributes:
        boot: that new windows belong to.
        pending: windows, sent or not.
        last_seq: the number of the boot's last window; 0 before the first.
        dropped: windows that were lost because the outbox was full.
    """

    boot: str
    pending: int
    last_seq: int
    dropped: int

    def to_json(self) -> wire.Json:
        """Return it as the verb `status` reports it."""
        return self._asdict()


class Outbox:
    """The windows that the host has not acknowledged, in the order in which they were appended.

    Args:
        cap: the largest number of windows; beyond it neighbours are merged.
    """

    def __init__(self, database: sqlite3.Connection, device_id: str, cap: int = CAP) -> None:
        self._database = database
        self._device_id = device_id
        self._cap = cap
        nonce = database.execute("SELECT value FROM meta WHERE name = 'nonce'").fetchone()[0]
        # A new file starts again at seq 1. The nonce keeps its numbers apart from those of a lost file.
        self.boot = f"{clock.read_boot_id()}:{nonce}"

    def append(self, model: str, release: str, window: Window) -> int:
        """Store one window and return its number; it is on disk when this returns."""
        with _transaction(self._database) as database:
            database.execute("INSERT OR IGNORE INTO boots VALUES (?, 0)", (self.boot,))
            database.execute("UPDATE boots SET last_seq = last_seq + 1 WHERE boot = ?", (self.boot,))
            seq = int(
                database.execute("SELECT last_seq FROM boots WHERE boot = ?", (self.boot,)).fetchone()[0]
            )
            numbered = replace(
                window, device_id=self._device_id, boot=self.boot, seq=seq, model=model, release=release
            )
            database.execute(
                "INSERT INTO windows (boot, seq, model, release, merged, body) VALUES (?, ?, ?, ?, ?, ?)",
                (self.boot, seq, model, release, window.merged, _text(numbered)),
            )
            self._shrink(database)
        return seq

    def _shrink(self, database: sqlite3.Connection) -> None:
        over = self._count(database) - self._cap
        for _ in range(over):
            if not any(self._merge(database, *pair) for pair in self._pairs(database)):
                self._drop_oldest(database)

    def _pairs(self, database: sqlite3.Connection) -> list[tuple[int, int]]:
        """Return the row ids of all neighbours: those of the fewest windows first, then the oldest.

        A sent window is never merged: the host may have stored it under its number already, and a number must
        never stand for different counts.
        """
        rows = database.execute(
            "SELECT id, boot, model, release, merged FROM windows WHERE sent = 0 ORDER BY id"
        ).fetchall()
        last_of: dict[tuple[str, str, str], tuple[int, int]] = {}
        pairs: list[tuple[int, int, int]] = []
        for number, boot, model, release, merged in rows:
            key = (boot, model, release)
            if key in last_of:
                older, before = last_of[key]
                pairs.append((before + merged, older, number))
            last_of[key] = (number, merged)
        return [(older, newer) for _, older, newer in sorted(pairs)]

    def _merge(self, database: sqlite3.Connection, older: int, newer: int) -> bool:
        """Merge two rows into the newer one; return whether they could be merged."""
        query = "SELECT body FROM windows WHERE id = ?"
        bodies = [database.execute(query, (number,)).fetchone()[0] for number in (older, newer)]
        try:
            merged = merge_windows(*(parse(json.loads(body)) for body in bodies))
        except ValueError:  # damaged, or the histograms do not match
            return False
        database.execute("DELETE FROM windows WHERE id = ?", (older,))
        database.execute(
            "UPDATE windows SET body = ?, merged = ? WHERE id = ?", (_text(merged), merged.merged, newer)
        )
        return True

    def _drop_oldest(self, database: sqlite3.Connection) -> None:
        # Nothing can be merged: all are of other releases, sent, or damaged. The loss is counted.
        merged = database.execute("SELECT merged FROM windows ORDER BY id LIMIT 1").fetchone()[0]
        database.execute("DELETE FROM windows WHERE id = (SELECT min(id) FROM windows)")
        database.execute("INSERT OR IGNORE INTO meta VALUES ('dropped', '0')")
        database.execute(
            "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + ? AS TEXT) WHERE name = 'dropped'",
            (merged,),
        )

    def take(self, limit: int) -> tuple[str, list[wire.Json]]:
        """Return the oldest window's boot and up to `limit` of its windows, oldest first; they stay stored.

        Only one boot at a time, so that one acknowledgement covers everything sent. The windows are returned
        as stored: a window that is sent twice must be the same both times. The host validates it.
        """
        with _transaction(self._database) as database:
            first = database.execute("SELECT boot FROM windows ORDER BY id LIMIT 1").fetchone()
            if first is None:
                return self.boot, []
            rows = database.execute(
                "SELECT id, body FROM windows WHERE boot = ? ORDER BY seq LIMIT ?", (first[0], limit)
            ).fetchall()
            database.executemany(
                "UPDATE windows SET sent = 1 WHERE id = ?", [(number,) for number, _ in rows]
            )
        return str(first[0]), [json.loads(body) for _, body in rows]

    def acknowledge(self, boot: str, seq: int) -> int:
        """Delete the windows of a boot up to a number; return how many were deleted."""
        with _transaction(self._database) as database:
            return database.execute("DELETE FROM windows WHERE boot = ? AND seq <= ?", (boot, seq)).rowcount

    def pending(self) -> int:
        """Return how many windows are stored, sent or not."""
        return self._count(self._database)

    @staticmethod
    def _count(database: sqlite3.Connection) -> int:
        return int(database.execute("SELECT count(*) FROM windows").fetchone()[0])

    def summary(self) -> OutboxSummary:
        """Return what the outbox holds."""
        last = self._database.execute("SELECT last_seq FROM boots WHERE boot = ?", (self.boot,)).fetchone()
        dropped = self._database.execute("SELECT value FROM meta WHERE name = 'dropped'").fetchone()
        return OutboxSummary(
            boot=self.boot,
            pending=self.pending(),
            last_seq=int(last[0]) if last else 0,
            dropped=int(dropped[0]) if dropped else 0,
        )


def _text(window: Window) -> str:
    return wire.canonical(to_json(window)).decode("utf-8")


@contextmanager
def opened(home: Home, cap: int = CAP) -> Iterator[Outbox]:
    """Open the home's outbox and close it afterwards.

    A damaged file is renamed and a new one is created, with a new nonce.
    """
    try:
        database = connect(home.outbox)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # busy, full or not readable: the file itself is sound
        for suffix in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(home.outbox + suffix):
                disk.replace(home.outbox + suffix, f"{home.outbox}.damaged-{time.time_ns()}{suffix}")
        database = connect(home.outbox)
    try:
        yield Outbox(database, identity.device_id(home), cap)
    finally:
        database.close()


def connect(path: str) -> sqlite3.Connection:
    """Return a connection to an outbox file, migrated; its transactions are on disk when they end."""
    # isolation_level None: _transaction alone begins and ends transactions, on every Python version.
    database = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version < len(_MIGRATIONS):
            _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection) -> None:
    with _transaction(database):
        # Read again under the write lock: another process may have migrated meanwhile.
        version = database.execute("PRAGMA user_version").fetchone()[0]
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            for statement in script.split(";"):
                if statement.strip():
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
        database.execute("INSERT OR IGNORE INTO meta VALUES ('nonce', ?)", (uuid.uuid4().hex[:12],))


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
