"""A home folder that an earlier agent left: this agent reads all of it and gives the same answers.

`stored_home_v1.json` holds the files of a device with two releases, a third one staged for an A/B split, a
pin, a trusted key and windows that were not collected, and that agent's own answers. Contents and the
interpreter of its runtime are left out: none of these verbs reads them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.storage.clock import read_boot_id

RECORDED = (Path(__file__).parent / "stored_home_v1.json").read_text("utf-8")
RECORDED_BOOT = "ff7843c8-e7df-4458-877f-ed3e4ca06140"
# The home as if this machine had not been restarted since the earlier agent wrote it.
STORED: dict[str, Any] = json.loads(RECORDED.replace(RECORDED_BOOT, read_boot_id()))
# They change with the disk that holds the home.
NOT_COMPARED = ("free_bytes", "free_inodes")


def lay_out(home: Path, stored: dict[str, Any]) -> None:
    """Write the stored files, links and outbox below `home`."""
    for name, text in stored["files"].items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    for name, target in stored["links"].items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, home / name)
    connection = sqlite3.connect(home / "outbox.db")
    connection.executescript("\n".join(stored["outbox_sql"]))
    connection.execute(f"PRAGMA user_version = {int(stored['outbox_user_version'])}")
    connection.close()


@pytest.fixture
def stored_home(tmp_path: Path) -> Path:
    """Return the stored home, laid out as it was."""
    home = tmp_path / "home"
    lay_out(home, STORED)
    return home


def answer_of(home: Path, verb: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one verb of this agent in a process and return its messages after `hello`."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeq_agent", verb, "--home", str(home)],
        input=json.dumps(request) + "\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    messages: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    result = messages[-1]["result"]
    for name in NOT_COMPARED:
        result.pop(name, None)
    for model in result.get("models", {}).values() if verb == "status" else ():
        # The earlier agent did not report it.
        assert model.pop("recorder") == {"failures": 0, "problem": "", "restarts": 0}
        assert model.pop("damaged") == model["releases"], "their contents are left out"
    return messages[1:]


@pytest.mark.parametrize("verb", sorted(STORED["answers"]))
def test_it_answers_from_an_earlier_agents_home_as_that_agent_did(stored_home: Path, verb: str) -> None:
    recorded = STORED["answers"][verb]
    assert answer_of(stored_home, verb, recorded["request"]) == recorded["messages"]


def test_a_restart_since_then_changes_only_the_windows_boot(tmp_path: Path) -> None:
    before_the_restart = json.loads(RECORDED)
    lay_out(tmp_path / "home", before_the_restart)
    recorded = before_the_restart["answers"]["status"]
    expected, result = (
        recorded["messages"][-1]["result"],
        answer_of(tmp_path / "home", "status", {})[-1]["result"],
    )
    assert result["outbox"].pop("boot").startswith(read_boot_id())
    assert result["outbox"].pop("last_seq") == 0
    assert expected["outbox"].pop("boot").startswith(RECORDED_BOOT)
    assert expected["outbox"].pop("last_seq") == 8
    assert result == expected


def test_windows_of_an_earlier_agent_are_acknowledged_once(stored_home: Path) -> None:
    result = answer_of(stored_home, "telemetry", {})[-1]["result"]
    assert result["pending"] == 2
    after = answer_of(stored_home, "telemetry", {"ack": {"boot": result["boot"], "seq": 1}})
    assert after[-1]["result"]["acked"] == 1
    assert [message["window"]["seq"] for message in after[:-1]] == [2]


def test_a_pin_of_an_earlier_agent_can_be_released(stored_home: Path) -> None:
    (pinned,) = json.loads(STORED["files"]["models/digits/pins.json"])["releases"]
    result = answer_of(stored_home, "unpin", {"model": "digits"})[-1]["result"]
    assert (result["release"], result["changed"], result["pins"]) == (pinned, True, [])
    assert json.loads((stored_home / "models/digits/pins.json").read_text())["releases"] == []


def test_the_split_of_an_earlier_agent_can_be_cleared(stored_home: Path) -> None:
    split = json.loads(STORED["files"]["models/digits/split.json"])
    shown = answer_of(stored_home, "split", {"model": "digits"})[-1]["result"]
    assert shown["split"]["experiment"] == split["experiment"]
    answer_of(stored_home, "split", {"model": "digits", "clear": True})
    assert not (stored_home / "models" / "digits" / "split.json").exists()
