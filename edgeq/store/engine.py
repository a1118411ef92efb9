"""Open the store's SQLite file: pragmas, transactions, migrations, and database errors as StoreError."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from edgeq.errors import StoreError
from edgeq.store.migrations import CREATE_SCHEMA_VERSION, MIGRATIONS, Migration
from edgeq.store.schema import schema_version

BUSY_TIMEOUT_MS = 10_000
# SQLite needs so much for its index of the write-ahead log.
_LEAST_BYTES = 64 * 1024


def open_engine(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sa.Engine:
    """Open the file; create it if it is missing, and migrate it if it is older.

    Raises:
        StoreError: EQ610; the folder is not writable, or the file is not a database, belongs to another
            program, or was written by a newer edgeq.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            str(path), f"cannot create its folder ({error.strerror})", hint="choose another --workspace"
        ) from error
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    try:
        with store_errors(path):
            _migrate(engine, path, migrations)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise a database driver's error as StoreError."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig)
        raise StoreError(str(path), _problem(text), hint=_hint(text, path)) from error


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection whose transaction sees one snapshot and does not block writers."""
    with engine.connect().execution_options(edgeq_reads=True) as connection:
        yield connection


def _prepare(connection: Any, _record: Any) -> None:
    # The driver's implicit transactions commit before DDL. With None, only _begin starts transactions.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "foreign_keys=ON",
        "synchronous=FULL",  # the device deletes an acknowledged window, so it must be on this disk
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A writing transaction takes the write lock first: SQLite does not wait when a reader upgrades its lock.
    deferred = connection.get_execution_options().get("edgeq_reads", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if deferred else "BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine, path: Path, migrations: Sequence[Migration]) -> None:
    while True:
        with engine.begin() as connection:
            version = _version(connection, path)
            if version > len(migrations):
                raise StoreError(
                    str(path),
                    "written by a newer edgeq",
                    expected=f"schema {len(migrations)} or older",
                    got=f"schema {version}",
                    hint="upgrade edgeq (`pip install -U edgeq`), or choose another --workspace",
                )
            if version == len(migrations):
                return
            for statement in migrations[version]:
                connection.exec_driver_sql(statement)
            connection.execute(schema_version.delete())
            connection.execute(schema_version.insert().values(version=version + 1))


def _version(connection: sa.Connection, path: Path) -> int:
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        connection.exec_driver_sql(CREATE_SCHEMA_VERSION)
        return 0
    if schema_version.name not in tables:
        raise StoreError(
            str(path),
            "this database belongs to another program",
            hint="move it away, or choose another --workspace",
        )
    version = connection.execute(sa.select(sa.func.max(schema_version.c.version))).scalar_one() or 0
    if not isinstance(version, int) or version < 0:
        problem = f"its table {schema_version.name} is damaged"
        raise StoreError(str(path), problem, hint=f"restore {path.name} from a backup, or move it away")
    return version


def _problem(text: str) -> str:
    if "not a database" in text:
        return "not a database"
    if "locked" in text or "busy" in text:
        return f"locked by another process for over {BUSY_TIMEOUT_MS // 1000} s"
    return f"cannot be used ({text})"


def _is_full(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    without_inodes = status.f_files > 0 and status.f_favail == 0
    return without_inodes or status.f_bavail * status.f_frsize < _LEAST_BYTES


def _hint(text: str, path: Path) -> str:
    if "locked" in text or "busy" in text:
        return "wait until the other edgeq process ends, then run the command again"
    if "not a database" in text or "malformed" in text:
        return f"restore {path.name} from a backup, or move it away: edgeq then creates a new one"
    if "full" in text or _is_full(path.parent):  # SQLite calls a full disk an I/O error, too
        return "free disk space, then run the command again"
    return "check the folder's permissions, or choose another --workspace"
