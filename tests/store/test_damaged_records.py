"""A record whose JSON is damaged is an error that says how to give it up; the others stay readable."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.errors import StoreError
from edgeq.store import RefusedRecord, Store
from edgeq.store.schema import METADATA
from tests.telemetry.golden import EVERY_FIELD, received, window_json

READERS: dict[tuple[str, str], Callable[[Store], object]] = {
    ("runs", "body"): lambda store: store.runs(),
    ("benches", "body"): lambda store: store.benches(),
    ("experiments", "body"): lambda store: store.experiments(),
    ("audit", "body"): lambda store: store.audit(),
    ("releases", "manifest"): lambda store: store.releases(),
    ("releases", "reference"): lambda store: store.release("b" * 64),
}
COMMANDS = [
    ["runs"], ["runs", "--json"], ["audit", "list", "--json"], ["audit", "list"], ["audit", "verify"],
    ["monitor"], ["quarantine", "list"], ["ab", "list"], ["ab", "status", "e"],
]  # fmt: skip
DAMAGES = ["", "{", "[1]", "7", "[" * 100_000, b"\xff\x00"]


# The readers of experiments judge JSON that is not an object.
CASES = [
    (table, column, damage)
    for table, column in READERS
    for damage in DAMAGES
    if table != "experiments" or damage not in ("[1]", "7")
]


def fill(store: Store) -> None:
    for name in ("a", "b"):
        store.record_run("demo", name, {"name": name})
        store.record_bench(name, {"model": "m", "release": name * 64})
        store.record_experiment("e", name, "ann", {})
        store.record_audit("ann", "did", name, {})
        store.put_release(name * 64, {"model": name}, {"classes": 2})


@pytest.mark.first_is_quick
@pytest.mark.parametrize(("table", "column", "damage"), CASES, ids=range(len(CASES)))
def test_the_hint_removes_the_damaged_record_and_keeps_the_others(
    table: str, column: str, damage: str | bytes, tmp_path: Path
) -> None:
    read = READERS[table, column]
    with Store.open(tmp_path) as store:
        fill(store)
        with closing(sqlite3.connect(store.path)) as database:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = 2", (damage,))  # noqa: S608
            database.commit()
            with pytest.raises(StoreError, match=f"damaged record: {column} of {table} ") as caught:
                read(store)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 1000
            statement = re.search(r'"(DELETE .*?)"', caught.value.hint or "")
            assert statement is not None
            database.execute(statement[1])
            database.commit()
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)  # noqa: S608
        read(store)


def test_a_quarantined_record_that_is_not_json_is_shown_as_text(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, closing(sqlite3.connect(store.path)) as database:
        database.execute(
            "INSERT INTO quarantine (device, reason, received_ns, sha256, body) "
            "VALUES ('pi', 'r', 1, 'x', '{')"
        )
        database.commit()
        assert [record.body for record in store.quarantine()] == ["{"]


ODD = [b"\xff\x00", "x", -1.5, 1e300]
COLUMNS = [(table.name, column.name) for table in METADATA.sorted_tables for column in table.columns]


@pytest.mark.first_is_quick
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_value_of_another_type_in_any_column_is_not_a_bug(
    table: str, column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(tmp_path) as store:
        fill(store)
        store.ingest(
            "pi",
            [received(window_json(EVERY_FIELD, seq=seq)) for seq in (1, 2)],
            refused=[RefusedRecord(reason="r", body={})],
        )
        path = store.path
    kept = path.read_bytes()
    for value in ODD:
        path.write_bytes(kept)
        with closing(sqlite3.connect(path)) as database:
            with contextlib.suppress(sqlite3.IntegrityError):
                database.execute(
                    f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT max(rowid) FROM {table})",  # noqa: S608
                    (value,),
                )
            database.commit()
        for command in COMMANDS:
            assert main(["--workspace", str(tmp_path), *command]) in {0, 1}, (value, command)
            printed = capsys.readouterr()
            assert "EQ901" not in printed.err, (value, command, printed.err)
