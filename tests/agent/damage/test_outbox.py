"""A damaged outbox: no prediction is lost, and the windows that can be read are rescued."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import outbox
from tests.agent.damage.homes import ask, damaged, window

pytestmark = pytest.mark.convert


@pytest.mark.first_is_quick
@pytest.mark.parametrize("how", ["pages", "cut", "garbage", "a folder", "newer", "a named pipe", "emptied"])
def test_a_damaged_outbox_costs_no_prediction_and_is_reported(
    how: str, full_home: Path, requests: Any, tmp_path: Path
) -> None:
    home = damaged(full_home, tmp_path / "home", "outbox.db", how)
    messages = ask(home, "infer", *requests["infer"])
    result = messages[-1]["result"]
    assert (result["samples"], result["windows"]) == (2, 1)
    assert "telemetry_problem" not in result
    assert {report["file"] for report in result["damaged"]} == {"outbox.db"}
    assert list(home.glob("outbox.db.damaged-*")) or how == "emptied"
    sent = ask(home, "telemetry")
    assert sent[-1]["result"]["sent"] > 0
    if how in ("pages", "cut"):
        text = result["damaged"][0]["lost"]
        assert "windows could be read" in text


def test_windows_before_and_after_the_damage_are_rescued(full_home: Path, tmp_path: Path) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    path = home / "outbox.db"
    data = bytearray(path.read_bytes())
    pages = [at for at in range(4096, len(data), 4096) if data.count(b'"schema"', at, at + 4096) > 2]
    middle = pages[len(pages) // 2]
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    with outbox.opened(Home(str(home))) as box:
        boot, windows = box.take(1000)
        assert box.append("tiny", "r", window()) == 1, "numbers restart, in a boot of another nonce"
        assert boot != box.boot
    seqs = [each["seq"] for each in windows]
    assert 100 < len(seqs) < 200
    assert min(seqs) == 1
    assert max(seqs) == 200
    assert seqs == sorted(set(seqs))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE windows",
        "DROP TABLE boots",
        "DROP TABLE meta",
        "DELETE FROM meta",
        "UPDATE meta SET value = x'00ff'",
        "UPDATE boots SET last_seq = 'many'",
        "UPDATE boots SET last_seq = 0",
        "UPDATE windows SET body = substr(body, 1, 100)",
        "UPDATE windows SET body = x'ff00' WHERE seq % 2",
        "UPDATE windows SET body = '{}'",
        "UPDATE windows SET body = '[1e999]'",
        "UPDATE windows SET boot = x'00'",
        "UPDATE windows SET seq = 'x' || seq",
        "UPDATE windows SET merged = 'x'",
        "UPDATE windows SET model = 7",
        "CREATE TRIGGER t BEFORE INSERT ON windows BEGIN SELECT * FROM missing; END",
    ],
)
def test_content_that_is_not_an_outbox_is_replaced(full_home: Path, tmp_path: Path, statement: str) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    with contextlib.closing(sqlite3.connect(home / "outbox.db", isolation_level=None)) as database:
        database.execute(statement)
    with outbox.opened(Home(str(home))) as box:
        assert box.append("tiny", "r", window()) >= 1
        assert box.summary().pending >= 1
        for _ in range(10):
            boot, windows = box.take(1000)
            if not windows:
                break
            assert all((each["boot"], type(each["seq"])) == (boot, int) for each in windows)
            box.acknowledge(boot, max(each["seq"] for each in windows))
        assert box.pending() == 0, "everything that is sent can be acknowledged"
