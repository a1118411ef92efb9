"""Files that the agent stores: what is written is read back as it was, and files of older agents are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.activation import candidates, counters, states
from edgeq_agent.activation.candidates import CandidateRelease
from edgeq_agent.activation.counters import ReleaseCounts
from edgeq_agent.activation.state_record import SoakPolicy, StateRecord
from edgeq_agent.storage import clock
from edgeq_agent.storage.home import Home, locate

RELEASE, OTHER, RUNTIME = "a" * 64, "b" * 64, "c" * 64

STATE: dict[str, Any] = {
    "schema": "edgeq.model-state/1",
    "model": "m",
    "state": "soaking",
    "boot_id": "3f1c",
    "since_boot_ns": 12_000_000_000,
    "target": RELEASE,
    "target_runtime": RUNTIME,
    "target_history": [OTHER],
    "fallback": OTHER,
    "soak": {"soak_ns": 600_000_000_000, "failure_limit": 3},
    "timeout_s": 120.0,
    "tries": 0,
    "attempts": [{"release": RELEASE, "count": 2}],
    "runtimes": {OTHER: RUNTIME},
    "history": [],
    "previous": None,
    "pinned": [RELEASE],
    "health": {"proof": "golden", "latency_p95_ns": 900},
    "since_ns": 1_718_000_000_000_000_000,
    "reason": None,
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = locate(str(tmp_path / "home"))
    found.ensure()
    os.mkdir(found.model("m"))
    return found


def write(home: Home, name: str, body: dict[str, Any]) -> None:
    Path(home.model("m"), name).write_text(json.dumps(body))


def test_a_state_is_written_as_it_was_read(home: Home) -> None:
    write(home, "state.json", STATE)
    record = states.read(home, "m")
    assert record.to_json() == STATE
    assert record.soak == SoakPolicy(600_000_000_000, 3)
    assert (record.previous, record.runtime_of(RELEASE)) == (OTHER, RUNTIME)


def test_a_state_of_an_agent_before_soaks_and_attempts_is_read(home: Home) -> None:
    old = {"schema": "edgeq.model-state/1", "state": "committed", "runtimes": {OTHER: RUNTIME}}
    write(home, "state.json", {**old, "history": [RELEASE], "previous": RELEASE})
    record = states.read(home, "m")
    assert (record.state, record.previous, record.soak) == ("committed", RELEASE, None)
    assert record.attempts.count(OTHER) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"state": "no such state"},
        {"state": None},
        {"state": []},
        {**STATE, "soak": 600},
        {**STATE, "history": 7},
        {**STATE, "attempts": [RELEASE]},
        {**STATE, "runtimes": RUNTIME},
        {**STATE, "tries": {}},
    ],
)
def test_a_state_that_is_unknown_counts_as_damaged(home: Home, body: dict[str, Any]) -> None:
    write(home, "state.json", body)
    assert states.read(home, "m") == StateRecord("m", reason=states.DAMAGED)


def test_candidates_are_written_as_they_were_read(home: Home) -> None:
    entry = {"runtime": RUNTIME, "counter": 7, "health": {"proof": "golden"}, "since_ns": 5}
    body = {"schema": candidates.SCHEMA, "releases": {RELEASE: entry, OTHER: {**entry, "counter": 8}}}
    write(home, "staged.json", body)
    known = candidates.read(home, "m")
    assert known[RELEASE] == CandidateRelease(RUNTIME, 7, {"proof": "golden"}, 5)
    candidates.write(home, "m", known)
    assert json.loads(Path(candidates.path_of(home, "m")).read_text()) == body


def test_counters_of_this_boot_are_read_and_unknown_fields_ignored(home: Home) -> None:
    counts = {"calls": 10, "errors": 2, "errors_by_kind": {"invoke": 2}, "deadline_misses": 1, "new": 1}
    body = {"schema": counters.SCHEMA, "boot_id": clock.now().boot_id, "releases": {RELEASE: counts}}
    write(home, "counters.json", body)
    assert counters.read(home, "m", RELEASE) == ReleaseCounts(10, 2, 1, 0)
    counters.add(home, "m", RELEASE, errors=1)
    stored = json.loads(Path(home.model("m"), "counters.json").read_text())
    assert (stored["errors"], stored["errors_by_kind"]) == (3, {"invoke": 2, "inference": 1})
