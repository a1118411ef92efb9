"""The outbox: keep windows in SQLite until the host acknowledges them; when full, merge neighbours.

A window may get its number when it begins (`begin`). One that is never stored then leaves a mark: `lose` puts
an empty window with its number into its place.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Callable, Collection, Iterator, NamedTuple, TypeVar

from edgeq_agent import wire
from edgeq_agent.platforms import identity
from edgeq_agent.storage import clock, damage, disk
from edgeq_agent.storage.damage import Damage
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.outbox_file import (
    COLUMNS,
    DamagedContent,
    StoredRow,
    connect,
    damage_of,
    rescue,
    transaction,
    value_of,
)
from edgeq_agent.telemetry.window import Window, WindowError, parse, parse_unnumbered, to_json

CAP = 2000

_MARK = "stored:"
# So many stored windows are recognized later; a device has a few runtimes.
_KEPT_MARKS = 500

T = TypeVar("T")


class OpenWindow(NamedTuple):
    """A window that has begun.

    Attributes:
        mark: names it, also before it has a number: `<process token>-<anything>`.
        window: its counts up to now; without a number.
    """

    model: str
    release: str
    mark: str
    window: Window


class OutboxSummary(NamedTuple):
    """What an outbox holds.

    Attributes:
        boot: that new windows belong to.
        pending: windows, sent or not.
        last_seq: the last number that a window of the boot was given; 0 before the first.
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

    def __init__(self, home: Home, cap: int = CAP) -> None:
        self._home = home
        self._cap = cap
        self._device_id = identity.device_id(home)
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self.boot = self._guarded(self._read_boot)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _guarded(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run an operation; when the file turns out to be damaged, replace the file and run it again."""
        try:
            return operation(self._connection())
        except (sqlite3.Error, DamagedContent) as error:
            problem = damage_of(self._home.outbox, error)
            if problem is None:
                raise
            self._replace(problem)
            return operation(self._connection())

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            path = self._home.outbox
            if os.path.isfile(path) and not os.path.getsize(path):
                lost = "the windows in it are lost"
                damage.report(self._home, Damage("outbox.db", "is empty", lost, None))
            self._database = connect(path)
            self._inode = os.stat(path).st_ino
        return self._database

    def _replace(self, problem: str) -> None:
        """Rename the damaged file, create another one, and put into it what can still be read."""
        self.close()
        with disk.update(self._home.outbox + ".lock") as held:
            fcntl.flock(held.descriptor, fcntl.LOCK_EX)
            try:
                if not self._is_replaced():
                    self._make_new(problem)
            finally:
                fcntl.flock(held.descriptor, fcntl.LOCK_UN)
        self.boot = self._read_boot(self._connection())

    def _is_replaced(self) -> bool:
        """Return whether another process has put a new file in the place of the one that is open here."""
        if not self._inode or not os.path.isfile(self._home.outbox):
            return False
        return os.stat(self._home.outbox).st_ino != self._inode

    def _make_new(self, problem: str) -> None:
        kept = damage.rename(self._home.outbox)
        rows = rescue(self._home.path(kept))
        with transaction(self._connection()) as database:
            insert = f"INSERT OR IGNORE INTO windows ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
            database.executemany(insert, rows)
        lost = f"{len(rows)} windows could be read and were put into a new one; any others are lost"
        damage.report(self._home, Damage("outbox.db", problem, lost, kept))

    def _read_boot(self, database: sqlite3.Connection) -> str:
        row = database.execute("SELECT value FROM meta WHERE name = 'nonce'").fetchone()
        if row is None or not isinstance(row[0], str) or not row[0].isalnum():
            raise DamagedContent("it has no nonce")
        # A new file starts again at seq 1. The nonce keeps its numbers apart from those of a lost file.
        return f"{clock.read_boot_id()}:{row[0]}"

    def append(
        self,
        model: str,
        release: str,
        window: Window,
        mark: str | None = None,
        following: OpenWindow | None = None,
    ) -> int:
        """Store one window and return its number; it is on disk when this returns.

        Args:
            mark: of the window; `append_once` recognizes it.
            following: the window that begins now; it gets its number in the same transaction.
        """

        def store(database: sqlite3.Connection) -> int:
            with transaction(database):
                if mark is not None:
                    self._remember(database, mark)
                seq = self._append(database, model, release, window, mark)
                if following is not None:
                    self._begin(database, following)
                return seq

        return self._guarded(store)

    def append_once(self, each: OpenWindow) -> bool:
        """Store one window unless one with its mark was stored; return whether it was."""

        def store(database: sqlite3.Connection) -> bool:
            with transaction(database):
                if database.execute("SELECT 1 FROM meta WHERE name = ?", (_MARK + each.mark,)).fetchone():
                    return False
                self._remember(database, each.mark)
                self._append(database, each.model, each.release, each.window, each.mark)
            return True

        return self._guarded(store)

    def begin(self, each: OpenWindow) -> None:
        """Give a window its number before anything is counted in it; it is on disk when this returns."""

        def store(database: sqlite3.Connection) -> None:
            with transaction(database):
                self._begin(database, each)

        self._guarded(store)

    def _begin(self, database: sqlite3.Connection, each: OpenWindow) -> None:
        if database.execute("SELECT 1 FROM begun WHERE mark = ?", (each.mark,)).fetchone():
            return  # the call before failed after it had stored it
        row = (each.mark, self.boot, self._next_number(database), each.model, each.release)
        body = wire.canonical(to_json(each.window)).decode("utf-8")
        database.execute("INSERT INTO begun VALUES (?, ?, ?, ?, ?, ?)", (*row, body))

    def discard(self, mark: str) -> None:
        """Forget a window that has begun: nothing happened in it. Its number stays unused."""
        self._guarded(lambda database: database.execute("DELETE FROM begun WHERE mark = ?", (mark,)))

    def begun(self) -> list[str]:
        """Return the marks of the windows that have begun and are not stored, oldest first."""

        def read(database: sqlite3.Connection) -> list[str]:
            rows = database.execute("SELECT mark FROM begun ORDER BY rowid").fetchall()
            return [str(mark) for (mark,) in rows]

        return self._guarded(read)

    def lose(self, marks: Collection[str]) -> int:
        """Store an empty window, marked as lost, for each of these that has begun; return their number."""

        def store(database: sqlite3.Connection) -> int:
            lost = 0
            with transaction(database):
                for mark in marks:
                    query = "SELECT model, release, body FROM begun WHERE mark = ?"
                    row = database.execute(query, (mark,)).fetchone()
                    if row is not None:
                        self._append(database, row[0], row[1], _lost_window(row[2]), mark)
                        lost += 1
            return lost

        return self._guarded(store)

    @staticmethod
    def _remember(database: sqlite3.Connection, mark: str) -> None:
        database.execute("INSERT OR IGNORE INTO meta VALUES (?, '1')", (_MARK + mark,))
        query = "SELECT rowid FROM meta WHERE name LIKE ? ORDER BY rowid DESC LIMIT 1 OFFSET ?"
        oldest = database.execute(query, (_MARK + "%", _KEPT_MARKS)).fetchone()
        if oldest is not None:
            delete = "DELETE FROM meta WHERE name LIKE ? AND rowid <= ?"
            database.execute(delete, (_MARK + "%", oldest[0]))

    def _append(
        self, database: sqlite3.Connection, model: str, release: str, window: Window, mark: str | None
    ) -> int:
        # So that a damaged device.json does not cost the device its id.
        database.execute("INSERT OR REPLACE INTO meta VALUES ('device_id', ?)", (self._device_id,))
        boot, seq = self._number_of(database, mark)
        numbered = replace(
            window, device_id=self._device_id, boot=boot, seq=seq, model=model, release=release
        )
        database.execute(
            "INSERT INTO windows (boot, seq, model, release, merged, body) VALUES (?, ?, ?, ?, ?, ?)",
            (boot, seq, model, release, window.merged, _text(numbered)),
        )
        self._shrink(database)
        return seq

    def _number_of(self, database: sqlite3.Connection, mark: str | None) -> tuple[str, int]:
        """Return the boot and the number that a window got when it began, otherwise the next number."""
        row = database.execute("SELECT boot, seq FROM begun WHERE mark = ?", (mark,)).fetchone()
        if row is None:
            return self.boot, self._next_number(database)
        database.execute("DELETE FROM begun WHERE mark = ?", (mark,))
        return str(row[0]), _checked_number(row[1])

    def _next_number(self, database: sqlite3.Connection) -> int:
        database.execute("INSERT OR IGNORE INTO boots VALUES (?, 0)", (self.boot,))
        database.execute("UPDATE boots SET last_seq = last_seq + 1 WHERE boot = ?", (self.boot,))
        row = database.execute("SELECT last_seq FROM boots WHERE boot = ?", (self.boot,)).fetchone()
        return _checked_number(row[0])

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
            if type(merged) is not int:
                raise DamagedContent("a count of merged windows is none")
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
            merged = merge_windows(*(parse(value_of(body)) for body in bodies))
        except ValueError:  # damaged, or the histograms do not match
            return False
        database.execute("DELETE FROM windows WHERE id = ?", (older,))
        database.execute(
            "UPDATE windows SET body = ?, merged = ? WHERE id = ?", (_text(merged), merged.merged, newer)
        )
        return True

    def _drop_oldest(self, database: sqlite3.Connection) -> None:
        # Nothing can be merged: all are of other releases, sent, or damaged. The loss is counted.
        number, merged = database.execute("SELECT id, merged FROM windows ORDER BY id LIMIT 1").fetchone()
        self._drop(database, number, merged)

    @staticmethod
    def _drop(database: sqlite3.Connection, number: int, merged: int) -> None:
        """Delete one row, and count the windows that it stood for as dropped."""
        database.execute("DELETE FROM windows WHERE id = ?", (number,))
        database.execute("INSERT OR IGNORE INTO meta VALUES ('dropped', '0')")
        database.execute(
            "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + ? AS TEXT) WHERE name = 'dropped'",
            (merged,),
        )

    def take(self, limit: int, after: tuple[str, int] | None = None) -> tuple[str, list[wire.Json]]:
        """Return the oldest window's boot and up to `limit` of its windows, oldest first; they stay stored.

        Only one boot at a time, so that one acknowledgement covers everything sent. The windows are returned
        as stored: a window that is sent twice must be the same both times. The host validates them. Rows that
        hold no JSON are dropped, counted and reported.

        Args:
            after: the boot and number that were just acknowledged. A window that began before that one and
                was stored after it waits for the next collection, so that the numbers of one always ascend.
        """
        return self._guarded(lambda database: self._take(database, limit, after or ("", 0)))

    def _take(
        self, database: sqlite3.Connection, limit: int, after: tuple[str, int]
    ) -> tuple[str, list[wire.Json]]:
        due = "NOT (boot IS ? AND seq <= ?)"
        windows: list[wire.Json] = []
        unreadable = 0
        with transaction(database):
            while True:
                query = f"SELECT boot FROM windows WHERE {due} ORDER BY id LIMIT 1"  # noqa: S608
                first = database.execute(query, after).fetchone()
                if first is None:
                    boot = self.boot
                    break
                boot = first[0]
                where = f"boot IS ? AND {due}"
                query = f"SELECT id, {COLUMNS} FROM windows WHERE {where} ORDER BY seq LIMIT ?"  # noqa: S608
                rows = [
                    (number, StoredRow(*values))
                    for number, *values in database.execute(query, (boot, *after, limit))
                ]
                for number, row in rows:
                    if row.is_sound:
                        windows.append(_identified(row))
                    else:
                        self._drop(database, number, row.merged if type(row.merged) is int else 1)
                        unreadable += 1
                if windows or not rows:
                    break
            database.execute(
                f"UPDATE windows SET sent = 1 WHERE boot IS ? AND seq <= ? AND {due}",  # noqa: S608
                (boot, windows[-1]["seq"] if windows else 0, *after),
            )
        if unreadable:
            lost = f"{unreadable} damaged windows were dropped; the others are sent"
            damage.report(self._home, Damage("outbox.db", "has damaged rows", lost, None))
        return str(boot), windows

    def acknowledge(self, boot: str, seq: int) -> int:
        """Delete the windows of a boot up to a number that were sent; return how many were deleted.

        One that was never sent stays whatever the number is: the host cannot have stored it.
        """
        statement = "DELETE FROM windows WHERE boot = ? AND seq <= ? AND sent = 1"

        def delete(database: sqlite3.Connection) -> int:
            with transaction(database):
                return database.execute(statement, (boot, seq)).rowcount

        return self._guarded(delete)

    def pending(self) -> int:
        """Return how many windows are stored, sent or not."""
        return self._guarded(self._count)

    @staticmethod
    def _count(database: sqlite3.Connection) -> int:
        return int(database.execute("SELECT count(*) FROM windows").fetchone()[0])

    def summary(self) -> OutboxSummary:
        """Return what the outbox holds."""
        return self._guarded(self._summary)

    def _summary(self, database: sqlite3.Connection) -> OutboxSummary:
        last = database.execute("SELECT last_seq FROM boots WHERE boot = ?", (self.boot,)).fetchone()
        dropped = database.execute("SELECT value FROM meta WHERE name = 'dropped'").fetchone()
        try:
            return OutboxSummary(
                boot=self.boot,
                pending=self._count(database),
                last_seq=int(last[0]) if last else 0,
                dropped=int(dropped[0]) if dropped else 0,
            )
        except (TypeError, ValueError) as error:
            raise DamagedContent("a count is none") from error


def _identified(row: StoredRow) -> wire.Json:
    """Return the window of a row; without its number the host could not acknowledge it."""
    value = value_of(row.body) or {}
    if (value.get("boot"), value.get("seq")) == (row.boot, row.seq):
        return value
    return dict(value, boot=row.boot, seq=row.seq)


def known_device_id(home: Home) -> str | None:
    """Return the device's id as the outbox knows it; None when it does not, or cannot be read."""
    if not os.path.isfile(home.outbox):
        return None
    try:
        database = connect(home.outbox)
    except sqlite3.Error:
        return None
    try:
        row = database.execute("SELECT value FROM meta WHERE name = 'device_id'").fetchone()
    except sqlite3.Error:
        return None
    finally:
        database.close()
    return row[0] if row and isinstance(row[0], str) and row[0].isalnum() else None


def _checked_number(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise DamagedContent("a number of a window is none")
    return value


def _lost_window(body: Any) -> Window:
    try:
        return replace(parse_unnumbered(value_of(body)), lost=1)
    except WindowError as error:
        raise DamagedContent("a window that has begun cannot be read") from error


def _text(window: Window) -> str:
    return wire.canonical(to_json(window)).decode("utf-8")


@contextmanager
def opened(home: Home, cap: int = CAP) -> Iterator[Outbox]:
    """Open the home's outbox and close it afterwards.

    A damaged file is renamed and a new one is created, with a new nonce, whenever the damage is found.
    """
    box = Outbox(home, cap)
    try:
        yield box
    finally:
        box.close()
