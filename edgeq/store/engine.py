"""Opening the store's SQLite file: pragmas, transactions, migrations, and errors in the user's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from edgeq.errors import StoreError
from edgeq.store.schema import MIGRATIONS, Migration, schema_version

BUSY_TIMEOUT_MS = 10_000


def open_engine(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sa.Engine:
    """Open the file, making or migrating it where needed.

    Raises:
        StoreError: the folder cannot be written, the file is no database, belongs to another program,
            or was written by a newer edgeq.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            str(path), f"its folder cannot be made ({error.strerror})", hint="choose another --workspace"
        ) from error
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    try:
        with said(path):
            _migrate(engine, path, migrations)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def said(path: Path) -> Iterator[None]:
    """Turn what the database raises into a StoreError."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig)
        raise StoreError(str(path), _problem(text), hint=_hint(text, path)) from error


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection whose transaction sees one state and blocks nobody."""
    with engine.connect().execution_options(edgeq_reads=True) as connection:
        yield connection


def _prepare(connection: Any, _record: Any) -> None:
    # The driver's own transactions would commit before DDL; with None, _begin says when one starts.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "foreign_keys=ON",
        "synchronous=FULL",  # an acknowledged window is deleted on the device: it must be on this disk
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A transaction that will write takes the lock at once: upgrading later fails without waiting.
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
                    hint="install a newer edgeq (`pip install -U edgeq`) or choose another --workspace",
                )
            if version == len(migrations):
                return
            migrations[version](connection)
            connection.execute(schema_version.delete())
            connection.execute(schema_version.insert().values(version=version + 1))


def _version(connection: sa.Connection, path: Path) -> int:
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        schema_version.create(connection)
        return 0
    if schema_version.name not in tables:
        raise StoreError(
            str(path),
            "a database of another program",
            hint="move it away or choose another --workspace",
        )
    return int(connection.execute(sa.select(sa.func.max(schema_version.c.version))).scalar_one() or 0)


def _problem(text: str) -> str:
    if "not a database" in text:
        return "no database"
    if "locked" in text or "busy" in text:
        return f"in use by another process for over {BUSY_TIMEOUT_MS // 1000} s"
    return f"cannot be used ({text})"


def _hint(text: str, path: Path) -> str:
    if "locked" in text or "busy" in text:
        return "wait for the other edgeq to end and run the command again"
    if "not a database" in text or "malformed" in text:
        return f"move {path.name} away (or restore it); edgeq makes a new one"
    if "full" in text:
        return "free space on the disk and run the command again"
    return "check the folder's permissions or choose another --workspace"
