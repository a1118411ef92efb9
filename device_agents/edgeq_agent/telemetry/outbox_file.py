"""The file of the outbox: its schema, the connection to it, and what is rescued when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import contextmanager
from typing import Iterator, NamedTuple

from edgeq_agent import wire

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
    # The numbers of windows that have begun and are not stored yet. An older agent leaves the table alone.
    """
    CREATE TABLE begun (
        mark TEXT PRIMARY KEY, boot TEXT NOT NULL, seq INTEGER NOT NULL,
        model TEXT NOT NULL, release TEXT NOT NULL, body TEXT NOT NULL
    );
    """,
)
# What SQLite says, as an error of the operation, about a file that is damaged or not the outbox.
_DAMAGED_TEXTS = ("no such table", "no such column", "has no column", "malformed", "not a database", "decode")
COLUMNS = "boot, seq, model, release, merged, sent, body"


class DamagedContent(ValueError):
    """The file can be read, but what it holds is not an outbox."""


class StoredRow(NamedTuple):
    """One row of the table `windows`."""

    boot: str
    seq: int
    model: str
    release: str
    merged: int
    sent: int
    body: str

    @property
    def is_sound(self) -> bool:
        """Whether the values have their types and the body is a JSON object that can be sent."""
        texts = (self.boot, self.model, self.release, self.body)
        numbers = (self.seq, self.merged, self.sent)
        if not all(type(text) is str for text in texts) or not all(type(each) is int for each in numbers):
            return False
        return self.seq > 0 and self.merged > 0 and value_of(self.body) is not None


def value_of(text: str) -> wire.Json | None:
    """Return the JSON object of a window's body; None when it is damaged."""
    try:
        # Within the limits of a line: the host refuses a whole answer for one that is nested too deep.
        value = wire.parse_json(text.encode("utf-8"))
        wire.canonical(value)
    except (AttributeError, TypeError, ValueError, wire.WireError):
        return None
    return value if isinstance(value, dict) else None


def connect(path: str) -> sqlite3.Connection:
    """Return a connection to an outbox file, migrated; its transactions are on disk when they end."""
    # isolation_level None: `transaction` alone begins and ends transactions, on every Python version.
    database = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    # A damaged text is found by its content, not by an exception of whatever statement meets it first.
    database.text_factory = lambda data: data.decode("utf-8", "replace")
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
    with transaction(database):
        # Read again under the write lock: another process may have migrated meanwhile.
        version = database.execute("PRAGMA user_version").fetchone()[0]
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            for statement in script.split(";"):
                if statement.strip():
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
        database.execute("INSERT OR IGNORE INTO meta VALUES ('nonce', ?)", (uuid.uuid4().hex[:12],))


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run a block as one transaction that takes the write lock at its beginning."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        if database.in_transaction:  # a damaged file may have ended it
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def damage_of(path: str, error: Exception) -> str | None:
    """Return what is wrong with the file; None when the error is the disk's, or another process's lock."""
    if os.path.lexists(path) and not os.path.isfile(path):
        return "is not a regular file"
    for name in ("", "-journal", "-wal"):
        if os.path.isdir(path + name):
            return f"has a folder in the place of outbox.db{name}"
        if os.path.lexists(path + name) and not os.access(path + name, os.R_OK | os.W_OK):
            # A read-only disk refuses a new file as well: then the error stands.
            return f"does not belong to this user (number {os.getuid()})"
    if isinstance(error, sqlite3.OperationalError):
        text = str(error)
        return f"is damaged: {text}" if any(part in text for part in _DAMAGED_TEXTS) else None
    if isinstance(error, sqlite3.ProgrammingError):
        return None
    if isinstance(error, (sqlite3.DatabaseError, DamagedContent)):
        return f"is damaged: {error}"
    return None


def rescue(path: str) -> list[StoredRow]:
    """Return the sound windows of a damaged file, oldest first: those before and after the damage."""
    if not os.path.isfile(path):
        return []
    rows: dict[int, StoredRow] = {}
    try:
        database = sqlite3.connect(f"file:{_quoted(path)}?mode=rw", uri=True, timeout=10.0)
    except sqlite3.Error:
        return []
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        for order in ("ASC", "DESC"):
            _read_rows(database, order, rows)
    finally:
        database.close()
    return [rows[number] for number in sorted(rows) if rows[number].is_sound]


def _read_rows(database: sqlite3.Connection, order: str, rows: dict[int, StoredRow]) -> None:
    """Add rows until the first that cannot be read."""
    try:
        for number, *values in database.execute(
            f"SELECT id, {COLUMNS} FROM windows ORDER BY id {order}"  # noqa: S608 - constants
        ):
            rows[int(number)] = StoredRow(*values)
    except (sqlite3.Error, TypeError, ValueError):
        return  # the damage


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
