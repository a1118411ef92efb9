"""Frozen migrations of the store: the SQL that each schema version added, as it was released.

A released migration never changes, because its result is in people's files. To change a table, change it in
`edgeq.store.schema` and append a migration that brings existing files there. The tests compare both ways and
want a stored database of every version (`tests/store/write_database.py` writes one).
"""

from __future__ import annotations

# The statements of one migration, run in one transaction.
Migration = tuple[str, ...]

CREATE_SCHEMA_VERSION = "CREATE TABLE schema_version (version INTEGER NOT NULL)"

_V1_RECORDS: Migration = (
    """
    CREATE TABLE runs (
        id INTEGER NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        created_ns BIGINT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX ix_runs_kind ON runs (kind)",
    """
    CREATE TABLE releases (
        release TEXT NOT NULL,
        created_ns BIGINT NOT NULL,
        manifest TEXT NOT NULL,
        reference TEXT,
        PRIMARY KEY (release)
    )
    """,
    """
    CREATE TABLE windows (
        id INTEGER NOT NULL,
        device TEXT NOT NULL,
        device_id TEXT NOT NULL,
        boot TEXT NOT NULL,
        seq BIGINT NOT NULL,
        model TEXT NOT NULL,
        release TEXT NOT NULL,
        started_ns BIGINT NOT NULL,
        ended_ns BIGINT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (device_id, boot, seq)
    )
    """,
    "CREATE INDEX windows_by_stream ON windows (model, device, release)",
    """
    CREATE TABLE quarantine (
        id INTEGER NOT NULL,
        device TEXT NOT NULL,
        reason TEXT NOT NULL,
        received_ns BIGINT NOT NULL,
        sha256 TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (device, sha256)
    )
    """,
    """
    CREATE TABLE benches (
        id INTEGER NOT NULL,
        device TEXT NOT NULL,
        model TEXT NOT NULL,
        release TEXT NOT NULL,
        created_ns BIGINT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX ix_benches_model ON benches (model)",
    """
    CREATE TABLE audit (
        id INTEGER NOT NULL,
        at_ns BIGINT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id)
    )
    """,
)

_V2_EXPERIMENTS: Migration = (
    """
    CREATE TABLE experiment_windows (
        window INTEGER NOT NULL,
        experiment TEXT NOT NULL,
        PRIMARY KEY (window)
    )
    """,
    "CREATE INDEX ix_experiment_windows_experiment ON experiment_windows (experiment)",
    """
    CREATE TABLE experiments (
        id INTEGER NOT NULL,
        experiment TEXT NOT NULL,
        event TEXT NOT NULL,
        at_ns BIGINT NOT NULL,
        actor TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX ix_experiments_experiment ON experiments (experiment)",
)

_V3_AUDIT_CHAIN: Migration = tuple(
    f"ALTER TABLE audit ADD COLUMN {column} TEXT"
    for column in ("host", "command", "result", "previous", "sha256")
)

# Schema version n is the result of the first n migrations.
MIGRATIONS: tuple[Migration, ...] = (_V1_RECORDS, _V2_EXPERIMENTS, _V3_AUDIT_CHAIN)
VERSION = len(MIGRATIONS)
