"""Verb `logs`: entries of three logs in order, cursors that survive a rotation, and logs that are damaged."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.autostart import service_log
from edgeq_agent.storage import home, journal, log_file
from tests.agent.recorded import answers_as_recorded


def texts(answered: Any) -> list[str]:
    return [entry["text"] for entry in answered.result["entries"]]


@pytest.fixture
def place(device: Any) -> home.Home:
    at = home.Home(str(device.home))
    at.ensure()
    return at


def test_the_newest_entries_and_then_only_new_ones(device: Any, place: home.Home) -> None:
    for number in range(30):
        journal.append(place, "pin", model="tiny", number=number)
    Path(service_log.path(place)).parent.mkdir()
    assert log_file.append(service_log.path(place), "server: ü\x1b[2J") == ""
    assert log_file.append(place.crash_log, "status: Traceback\n  boom") == ""
    first = device.call("logs", lines=3)
    assert texts(first) == ["pin model=tiny number=29", "server: ü\x1b[2J", "status: Traceback\n  boom"]
    assert first.result["omitted"] == 29
    answers_as_recorded("logs", first)
    journal.append(place, "unpin", model="tiny")
    again = device.call("logs", cursors=first.result["cursors"])
    assert texts(again) == ["unpin model=tiny"]
    assert texts(device.call("logs", cursors=again.result["cursors"])) == []
    assert texts(device.call("logs", sources=["crash"])) == ["status: Traceback\n  boom"]
    assert texts(device.call("logs", since_ns=2**62)) == []
    assert len(texts(device.call("logs", since_s=3600))) == 33


def test_a_cursor_survives_a_rotation(place: home.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 200)
    seen: list[bytes] = []
    cursor = ""
    for number in range(40):
        assert log_file.append(place.crash_log, f"entry {number}") == ""
        if number % 3 == 0:
            part = log_file.read(place.crash_log, cursor)
            seen, cursor = [*seen, *filter(None, part.lines)], part.cursor
    assert [json.loads(line)["text"] for line in seen] == [f"entry {number}" for number in range(40)]


@pytest.mark.parametrize("cursor", ["x", ":", "1:2:3", "-1:5", "0:9999999999", "²:1", "9" * 100 + ":1"])
def test_an_odd_cursor_reads_all(place: home.Home, cursor: str) -> None:
    log_file.append(place.crash_log, "one")
    assert len([line for line in log_file.read(place.crash_log, cursor).lines if line]) == 1


@pytest.mark.parametrize("damage", ["folder", "binary", "half", "deep", "types", "link"])
def test_a_damaged_log_hides_no_other(device: Any, place: home.Home, damage: str) -> None:
    journal.append(place, "pin", model="tiny")
    log = Path(place.crash_log)
    if damage == "folder":
        log.mkdir()
    elif damage == "link":
        log.symlink_to("/dev/zero")
    else:
        log.write_bytes({
            "binary": bytes(range(256)) * 50,
            "half": b'{"time_ns": 1, "te',
            "deep": b"[" * 100_000 + b"\n",
            "types": b'{"time_ns": "x", "text": 5}\n{"time_ns": -1}\n[]\n{"text":"\\ud800"}\n{"a": 1e999}\n',
        }[damage])  # fmt: skip
    answered = device.call("logs")
    assert "pin model=tiny" in texts(answered)
    assert bool(answered.result["problems"]) == (damage in ("folder", "link"))


@pytest.mark.slow
@pytest.mark.parametrize("request_", [{"lines": 0}, {"lines": 10**6}, {"sources": ["x"]}, {"cursors": []}])
def test_a_bad_request_is_refused(device: Any, request_: dict[str, Any]) -> None:
    assert device.call("logs", **request_).error["code"] == "EQ512"


def test_a_bug_of_the_agent_is_in_the_crash_log(device: Any, place: home.Home) -> None:
    Path(place.path("models", "tiny")).mkdir()
    crash = "import edgeq_agent.verbs.status as s; s.identity.device_id = None; "
    run = "from edgeq_agent.__main__ import main; import sys; main(sys.argv[1:])"
    broken = dataclasses.replace(device, command=(sys.executable, "-c", crash + run))
    assert broken.call("status").error["code"] == "EQ590"
    (entry,) = device.call("logs", sources=["crash"]).result["entries"]
    assert entry["text"].startswith("status: Traceback")
    assert "TypeError" in entry["text"]
