"""The store's tables as the queries use them; `edgeq.store.migrations` creates them in the file."""

from __future__ import annotations

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

# No foreign key from windows to releases: a device may send windows of a release that another workspace
# deployed, and ingestion must accept them.
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
    # None in entries from before there was a chain.
    sa.Column("host", sa.Text),
    sa.Column("command", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("previous", sa.Text),
    sa.Column("sha256", sa.Text),
)

# The windows of an experiment's arms: a query finds them without parsing every window's body.
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
