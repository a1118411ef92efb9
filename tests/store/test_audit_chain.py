"""The audit log: each entry follows the one before; alterations are seen; no writer is lost."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.errors import StoreError
from edgeq.store import Store
from edgeq.store.audit_chain import DAMAGED
from tests.store.write_database import stored

WRITER = """
import sys
from pathlib import Path
from edgeq.store import Store
for number in range(int(sys.argv[2])):
    with Store.open(Path(sys.argv[1])) as store:
        store.record_audit("ann", "pin", sys.argv[3], {"number": number})
        print(number, flush=True)
"""


def filled(folder: Path, count: int = 6) -> Path:
    with Store.open(folder) as store:
        for number in range(count):
            store.record_audit(
                "ann", "pin", "pi", {"number": number}, host="desk", command="edgeq pin", result="done"
            )
    return folder


def sql(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / ".edgeq" / "store.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def problems(folder: Path, known: str | None = None) -> tuple[str, ...]:
    with Store.open(folder) as store:
        return store.check_audit(known=known).problems


def test_a_chain_that_was_left_alone_fits(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store.open(tmp_path) as store:
        result = store.check_audit()
        assert (result.entries, result.unchained, result.problems) == (6, 0, ())
        newest = store.audit()[0]
        assert (newest.host, newest.command, newest.result) == ("desk", "edgeq pin", "done")
        assert result.head is not None
        assert result.head.sha256 == newest.sha256
        assert store.check_audit(known=store.audit()[4].sha256).problems == ()


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["UPDATE audit SET actor = 'eve' WHERE id = 3"], "entry 3: was changed"),
        (["UPDATE audit SET body = '{}' WHERE id = 6"], "entry 6: was changed"),
        (["UPDATE audit SET command = NULL WHERE id = 1"], "entry 1: was changed"),
        (["UPDATE audit SET at_ns = at_ns + 1 WHERE id = 2"], "entry 2: was changed"),
        (["DELETE FROM audit WHERE id = 3"], "entry 4: does not follow entry 2"),
        (["DELETE FROM audit WHERE id = 1"], "entry 2: does not follow entry 0"),
        (["DELETE FROM audit WHERE id > 4"], "the end was removed or changed: the head is entry 6"),
        (["DELETE FROM audit"], "the end was removed or changed: the head is entry 6"),
        (
            ["UPDATE audit SET id = 99 WHERE id = 2", "UPDATE audit SET id = 2 WHERE id = 3",
             "UPDATE audit SET id = 3 WHERE id = 99"],
            "entry 2: does not follow entry 1",
        ),
        (
            ["INSERT INTO audit (id, at_ns, actor, action, subject, body)"
             " VALUES (7, 1, 'eve', 'pin', 'pi', '{}')"],
            "entry 7: was inserted",
        ),
        (
            ["INSERT INTO audit (id, at_ns, actor, action, subject, body)"
             " VALUES (0, 1, 'eve', 'pin', 'pi', '{}')"],
            "entry 1: does not follow entry 0: the older entries have changed",
        ),
        (["UPDATE audit SET sha256 = NULL, previous = NULL WHERE id <= 2"], "the older entries have changed"),
    ],
)  # fmt: skip
def test_a_chain_that_was_altered_does_not_fit(tmp_path: Path, statements: list[str], problem: str) -> None:
    sql(filled(tmp_path), *statements)
    assert problem in "\n".join(problems(tmp_path))


COLUMNS = ("at_ns", "actor", "host", "action", "subject", "command", "result", "body", "previous", "sha256")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(1, 6), column=st.sampled_from(COLUMNS), value=st.none() | st.text(max_size=9))
def test_any_changed_value_is_seen(
    tmp_path_factory: pytest.TempPathFactory, number: int, column: str, value: str | None
) -> None:
    if column in ("at_ns", "actor", "action", "subject", "body") and value is None:
        value = "0"
    folder = filled(tmp_path_factory.mktemp("chain"))
    with closing(sqlite3.connect(folder / ".edgeq" / "store.db")) as database:
        database.execute(f"UPDATE audit SET {column} = ? WHERE id = ?", (value, number))  # noqa: S608
        database.commit()
    assert problems(folder)


def test_a_removal_that_is_followed_by_a_new_entry_stays_visible(tmp_path: Path) -> None:
    sql(filled(tmp_path), "DELETE FROM audit WHERE id > 3")
    filled(tmp_path, 2)
    with Store.open(tmp_path) as store:
        assert [record.action for record in store.audit()][:3] == ["pin", "pin", DAMAGED]
    assert "entry 6, the last one of the head, is missing or changed" in "\n".join(problems(tmp_path))


def test_a_removal_together_with_the_head_is_seen_by_a_hash_kept_elsewhere(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store.open(tmp_path) as store:
        kept = store.check_audit().head
    assert kept is not None
    head = tmp_path / ".edgeq" / "audit-head.json"
    sql(tmp_path, "DELETE FROM audit WHERE id > 3")
    with Store.open(tmp_path) as store:
        row = store.audit()[0]
    head.write_text(json.dumps({"id": row.id, "sha256": row.sha256}))
    assert problems(tmp_path) == ()  # what the chain cannot prove: SECURITY.md says so
    assert "no entry has the hash" in "\n".join(problems(tmp_path, known=kept.sha256))


@pytest.mark.parametrize("damage", ["missing", "empty", "folder", "other", "deep"])
def test_a_damaged_head_is_seen_and_stops_nothing(tmp_path: Path, damage: str) -> None:
    head = filled(tmp_path) / ".edgeq" / "audit-head.json"
    head.unlink()
    if damage == "folder":
        head.mkdir()
    elif damage != "missing":
        head.write_text({"empty": "", "other": "[1]", "deep": "[" * 50_000}[damage])
    assert len(problems(tmp_path)) == 1
    if damage != "folder":
        filled(tmp_path, 1)
        assert any("when it was written" in problem for problem in problems(tmp_path))


@pytest.mark.parametrize("name", ["audit.lock", "audit-head.json"])
def test_a_file_of_the_chain_that_cannot_be_written_is_an_error_of_the_store(
    tmp_path: Path, name: str
) -> None:
    filled(tmp_path)
    (tmp_path / ".edgeq" / name).unlink()
    (tmp_path / ".edgeq" / name).mkdir()
    with Store.open(tmp_path) as store, pytest.raises(StoreError, match="cannot be written"):
        store.record_audit("ann", "pin", "pi", {})


def test_the_entries_of_an_older_store_are_covered_together(tmp_path: Path) -> None:
    (tmp_path / ".edgeq").mkdir()
    (tmp_path / ".edgeq" / "store.db").write_bytes(gzip.decompress(stored(2).read_bytes()))
    filled(tmp_path, 2)
    with Store.open(tmp_path) as store:
        result = store.check_audit()
    assert (result.entries, result.unchained, result.problems) == (2, 1, ())
    sql(tmp_path, "UPDATE audit SET actor = 'eve' WHERE id = 1")
    assert "the older entries have changed" in "\n".join(problems(tmp_path))


@pytest.mark.slow
def test_concurrent_writers_and_one_that_is_killed_leave_a_chain_that_fits(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    argv = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*argv, count, name], stdout=subprocess.PIPE, text=True)
        for count, name in (("25", "a"), ("25", "b"), ("5000", "killed"))
    ]
    time.sleep(2)
    writers[2].kill()
    outputs = [writer.communicate(timeout=120)[0] for writer in writers]
    with Store.open(tmp_path) as store:
        result = store.check_audit()
        written = [record.subject for record in store.audit(limit=10_000)]
    assert result.problems == ()
    assert (written.count("a"), written.count("b")) == (25, 25)
    # What a killed writer had reported is there; one more entry may be.
    assert written.count("killed") - len(outputs[2].splitlines()) in (0, 1)
