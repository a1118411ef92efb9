"""Migrations: the stored database of every version opens; the code's tables equal those of the migrations."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeq.store import Store
from edgeq.store.engine import open_engine
from edgeq.store.migrations import MIGRATIONS, VERSION, Migration
from edgeq.store.schema import METADATA
from edgeq_agent.telemetry.window import to_json
from tests.store.write_database import FOLDER, stored
from tests.telemetry.golden import received

# SHA-256 of the statements of each released migration. A new migration adds a line; no line ever changes.
RELEASED = {
    1: "8853e2e50a0f069cb704a424c13fb572973925754a02e3a837f390e0ec40d039",
    2: "1d450a706e95a145b7c0c50d34120cf8b07556e6728ec27c0e33a925d835b949",
    3: "8144979e27cf9f10ada004cf1d37723fb336baf169fff25eb9f6b974bd285a47",
}


def digest(migration: Migration) -> str:
    return hashlib.sha256(
        "\0".join(" ".join(statement.split()) for statement in migration).encode()
    ).hexdigest()


def unpack(version: int, workspace: Path) -> Path:
    path = workspace / ".edgeq" / "store.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.decompress(stored(version).read_bytes()))
    return path


def described(engine: sa.Engine) -> dict[str, object]:
    """Return what a database contains: per table its columns, keys, unique constraints and indices."""
    inspector = sa.inspect(engine)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign keys": inspector.get_foreign_keys(table),
            "unique": sorted(one["column_names"] for one in inspector.get_unique_constraints(table)),
            "indices": sorted(
                (str(one["name"]), one["column_names"], one["unique"]) for one in inspector.get_indexes(table)
            ),
        }
        for table in inspector.get_table_names()
    }


def of_the_code(metadata: sa.MetaData) -> dict[str, object]:
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    return described(engine)


def of_the_migrations(path: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> dict[str, object]:
    engine = open_engine(path, migrations)
    try:
        return described(engine)
    finally:
        engine.dispose()


def test_the_migrations_create_the_tables_of_the_code(tmp_path: Path) -> None:
    assert of_the_migrations(tmp_path / "store.db") == of_the_code(METADATA)


def test_a_changed_table_without_a_migration_is_seen(tmp_path: Path) -> None:
    changed = sa.MetaData()
    for table in METADATA.tables.values():
        table.to_metadata(changed)
    changed.tables["windows"].append_column(sa.Column("arm", sa.Text))
    assert of_the_migrations(tmp_path / "store.db") != of_the_code(changed)
    added = (*MIGRATIONS, ("ALTER TABLE windows ADD COLUMN arm TEXT",))
    assert of_the_migrations(tmp_path / "other.db", added) == of_the_code(changed)


def test_a_released_migration_never_changes() -> None:
    assert {number: digest(one) for number, one in enumerate(MIGRATIONS, 1)} == RELEASED


def test_every_version_has_a_stored_database() -> None:
    names = {f"v{version}.db.gz" for version in range(1, VERSION + 1)}
    missing = "python -m tests.store.write_database writes the database of a new version"
    assert {path.name for path in FOLDER.iterdir()} == names, missing


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_stored_database_is_migrated_and_read(tmp_path: Path, version: int) -> None:
    unpack(version, tmp_path)
    with Store.open(tmp_path) as store:
        assert [(run.id, run.kind, run.subject) for run in store.runs()] == [
            (2, "bundle", "kws.eqb"),
            (1, "convert", "kws.tflite"),
        ]
        assert store.runs("convert")[0].body == {"size_bytes": 7, "note": "für"}
        releases = [(one.release, one.manifest, one.reference) for one in store.releases()]
        assert releases == [("r1", {"model": "kws"}, {"inputs": []}), ("r2", {"model": "kws"}, None)]
        windows = store.windows(model="kws")
        assert [one.window.seq for one in windows] == [1, 2, 3][: 2 if version < 2 else 3]
        assert (windows[0].device, windows[0].device_id, windows[0].window.boot) == ("pi", "d1", "b:1")
        assert windows[0].window.inferences == 40
        assert [(one.reason, one.body) for one in store.quarantine()] == [("no window", [1, "x"])]
        assert [one.body["runs"] for one in store.benches("kws", "pi")] == [200]
        assert [(one.actor, one.action, one.body) for one in store.audit()] == [
            ("ann", "rollback", {"to": "r1"})
        ]
        events = [(one.experiment, one.event, one.actor) for one in store.experiments()]
        assert events == ([] if version < 2 else [("e-1", "started", "ann")])
        assert [one.window.seq for one in store.windows(experiment="e-1")] == ([] if version < 2 else [3])
        # It takes new records too: a device that sends a window again changes nothing.
        assert store.ingest("pi", [received(to_json(windows[0].window))], device_id="d1").duplicates == 1
        assert store.record_run("bundle", "kws.eqb", {}) == 3


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_migrated_database_is_like_a_new_one(tmp_path: Path, version: int) -> None:
    assert of_the_migrations(unpack(version, tmp_path)) == of_the_migrations(tmp_path / "new.db")
