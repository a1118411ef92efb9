"""The tables of the store and the ordered migrations that make them."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

METADATA = sa.MetaData()

schema_version = sa.Table("schema_version", METADATA, sa.Column("version", sa.Integer, nullable=False))

runs = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False, index=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

releases = sa.Table(
    "releases",
    METADATA,
    sa.Column("release", sa.Text, primary_key=True),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("reference", sa.Text),
)

# No foreign key from windows to releases: a device may send windows of a release that another
# workspace deployed, and those must not be refused.
windows = sa.Table(
    "windows",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("device_id", sa.Text, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("started_ns", sa.BigInteger, nullable=False),
    sa.Column("ended_ns", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("device_id", "boot", "seq"),
    sa.Index("windows_by_stream", "model", "device", "release"),
)

quarantine = sa.Table(
    "quarantine",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("received_ns", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("device", "sha256"),
)

benches = sa.Table(
    "benches",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

audit = sa.Table(
    "audit",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

# Which windows are of an experiment's arms, so that they are found without reading all of them.
experiment_windows = sa.Table(
    "experiment_windows",
    METADATA,
    sa.Column("window", sa.Integer, primary_key=True),
    sa.Column("experiment", sa.Text, nullable=False, index=True),
)

experiments = sa.Table(
    "experiments",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("experiment", sa.Text, nullable=False, index=True),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)


def _create_records(connection: sa.Connection) -> None:
    for table in (runs, releases, windows, quarantine, benches, audit):
        table.create(connection)


def _create_experiments(connection: sa.Connection) -> None:
    for table in (experiment_windows, experiments):
        table.create(connection)


Migration = Callable[[sa.Connection], None]

# Version n is what the first n functions made. A released function is never changed: what it did is in
# people's files. A later change of a table is a new function with its own statements.
MIGRATIONS: tuple[Migration, ...] = (_create_records, _create_experiments)
VERSION = len(MIGRATIONS)
