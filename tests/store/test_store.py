"""`Store`: records, windows ingested exactly once, and one-line errors of an unusable database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.errors import StoreError
from edgeq.store import ReceivedWindow, RefusedRecord, Store
from edgeq.store.engine import open_engine
from edgeq.store.migrations import MIGRATIONS, VERSION
from tests.telemetry.golden import received, window_json


def _window(seq: int, boot: str = "b:1", **more: Any) -> ReceivedWindow:
    body = {"boot": boot, "seq": seq, "release": "r1", "started_ns": 10 * seq, "ended_ns": 10 * seq + 5}
    return received(window_json("verb infer", **body, **more))


def test_runs_come_back_newest_first_and_by_kind(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        first = store.record_run("convert", "a.tflite", {"size_bytes": 7, "path": tmp_path})
        second = store.record_run("bundle", "a.eqb", {"sqnr_db": float("inf")})
    with Store.open(tmp_path) as store:
        assert [run.id for run in store.runs()] == [second, first]
        (only,) = store.runs("convert")
        assert (only.subject, only.body["size_bytes"]) == ("a.tflite", 7)
        assert store.runs("bundle")[0].body == {"sqnr_db": None}
        assert len(store.runs(limit=1)) == 1


def test_a_release_keeps_its_manifest_and_gains_a_missing_reference(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert store.release("r1") is None
        store.put_release("r1", {"model": "kws"}, None)
        store.put_release("r1", {"model": "kws"}, {"inputs": []})
        store.put_release("r1", {"model": "other"}, {"inputs": [1]})
        record = store.release("r1")
        assert record is not None
        assert (record.manifest, record.reference) == ({"model": "kws"}, {"inputs": []})
        assert [release.release for release in store.releases()] == ["r1"]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(1, 12), max_size=8), max_size=6))
def test_windows_are_stored_exactly_once_in_any_order_of_arrival(
    batches: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen: set[int] = set()
    with Store.open(tmp_path_factory.mktemp("store")) as store:
        for batch in batches:
            result = store.ingest("pi", [_window(seq) for seq in batch])
            assert result.new == len(set(batch) - seen)
            assert result.new + result.duplicates == len(batch)
            seen |= set(batch)
        assert sorted(record.window.seq for record in store.windows()) == sorted(seen)


def test_a_bad_window_rolls_the_whole_batch_back(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        nameless = replace(_window(2).window, model=None)  # type: ignore[arg-type]
        broken = replace(_window(2), window=nameless)
        with pytest.raises(StoreError, match="NOT NULL"):
            store.ingest("pi", [_window(1), broken])
        assert store.windows() == []


def test_a_renamed_device_keeps_its_windows(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.ingest("old", [_window(1)], device_id="d1")
        assert store.ingest("new", [_window(1), _window(2)], device_id="d1").duplicates == 1
        assert store.ingest("other", [_window(1)], device_id="d2").new == 1
        assert [(record.device, record.window.seq) for record in store.windows()] == [
            ("old", 1),
            ("new", 2),
            ("other", 1),
        ]
        assert len(store.windows(device="new", model="kws", release="r1")) == 1
        assert store.windows(model="none") == []


def test_a_known_window_with_other_content_is_quarantined(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.ingest("pi", [_window(1, inferences=5)])
        for _ in range(2):
            result = store.ingest(
                "pi", [_window(1, inferences=6)], refused=[RefusedRecord(reason="odd", body=[1])]
            )
        assert (result.new, result.duplicates, result.quarantined) == (0, 0, 0)
        assert store.windows()[0].window.inferences == 5
        reasons = [record.reason for record in store.quarantine("pi")]
        assert reasons == ["the store has another window with boot b:1 and seq 1", "odd"]


def test_benchmarks_and_audit_records_are_kept(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.record_bench("pi", {"model": "kws", "release": "r1", "runs": 200})
        store.record_audit("ann", "rollback", "pi/kws", {"to": "r0"})
        assert store.benches("kws", "pi")[0].body["runs"] == 200
        assert store.benches("kws", "coral") == []
        assert store.audit()[0].action == "rollback"


def test_the_pragmas_are_set(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "store.db")
    with engine.connect() as connection:
        for pragma, value in (
            ("journal_mode", "wal"),
            ("foreign_keys", 1),
            ("busy_timeout", 10_000),
            ("synchronous", 2),
        ):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value
    engine.dispose()


def test_a_newer_database_is_not_changed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.record_run("convert", "a", {})
        path = store.path
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE schema_version SET version = ?", (VERSION + 1,))
    raw.close()
    with pytest.raises(StoreError, match=f"schema {VERSION} or older, got schema {VERSION + 1}") as caught:
        Store.open(tmp_path)
    assert "pip install -U edgeq" in str(caught.value.hint)


def test_a_file_that_is_not_a_database_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / ".edgeq" / "store.db"
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to look" * 40)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database") as caught:
        Store.open(tmp_path)
    assert caught.value.reported_code == "EQ610"
    assert "move it away" in str(caught.value.hint)
    assert path.read_bytes() == before


def test_another_programs_database_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / ".edgeq" / "store.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()
    with pytest.raises(StoreError, match="another program"):
        Store.open(tmp_path)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".edgeq").write_text("in the way")
    with pytest.raises(StoreError, match="cannot create its folder"):
        Store.open(tmp_path)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_engine(path).dispose()

    broken = ("CREATE TABLE half (x)", "CREATE TABLE runs (x)")
    with pytest.raises(StoreError, match="already exists"):
        open_engine(path, (*MIGRATIONS, broken))
    engine = open_engine(path)
    assert "half" not in sa.inspect(engine).get_table_names()
    engine.dispose()

    engine = open_engine(path, (*MIGRATIONS, ("CREATE TABLE whole (x)",)))
    assert "whole" in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_many_openers_and_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with Store.open(tmp_path) as store:
                for seq in range(1, 21):
                    store.ingest("pi", [_window(seq, boot=f"b:{number % 2}")])
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's failure
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store.open(tmp_path) as store:
        assert len(store.windows()) == 40


FULL = """
import sys
from pathlib import Path
from edgeq.cli import main
from edgeq.testing.small_home import mount_small
folder = Path(sys.argv[1])
mount_small(folder, 200 * 1024)
assert main(["--workspace", sys.argv[1], "runs"]) == 0
try:
    (folder / "fill").write_bytes(bytes(400 * 1024))
except OSError:
    pass
for command in (["runs"], ["audit", "list"], ["monitor"], ["agent", "build", "-o", f"{folder}/agent"]):
    assert main(["--workspace", sys.argv[1], *command]) == 1, command
"""


@pytest.mark.slow
def test_a_full_disk_is_called_one_in_the_hint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    if "does not allow" in done.stderr:
        pytest.skip("this machine allows no mount namespace")
    assert done.returncode == 0, done.stderr
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert len(hints) == 4
    assert all(line.startswith("hint: free disk space") for line in hints), done.stderr
