"""Files on the device: complete or absent; state changes follow the transition table only."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import errors
from edgeq_agent.activation import state_record, states
from edgeq_agent.activation.state_record import Attempts, SoakPolicy, StateRecord
from edgeq_agent.inference.job import HealthReport
from edgeq_agent.platforms import identity
from edgeq_agent.storage import files, home, journal, scratch


@pytest.fixture
def place(tmp_path: Path) -> home.Home:
    home_folder = home.locate(str(tmp_path / "home"))
    home_folder.ensure()
    return home_folder


def test_a_file_is_replaced_or_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(str(path), {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(str(path), {"a": float("nan")})
    assert files.read_json(str(path)) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_link_is_replaced_atomically_also_after_a_leftover(tmp_path: Path) -> None:
    link = tmp_path / "current"
    files.replace_link(str(link), "one")
    os.symlink("leftover", tmp_path / ".current.new")
    files.replace_link(str(link), "two")
    assert os.readlink(link) == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["current"]


def test_the_journal_survives_an_incomplete_line(place: home.Home) -> None:
    journal.append(place, "one")
    with open(place.journal, "ab") as stream:
        stream.write(b'{"event": "cut')
    journal.append(place, "two")
    assert [entry["event"] for entry in journal.tail(place, 10)] == ["one", "two"]
    assert [entry["event"] for entry in journal.tail(place, 1)] == ["two"]


def test_the_journal_is_rotated(place: home.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 500)
    for number in range(50):
        journal.append(place, str(number))
    assert os.path.getsize(place.journal) < 1000
    assert os.path.exists(place.journal + ".1")
    assert journal.tail(place, 1)[0]["event"] == "49"


def test_the_device_keeps_its_id(place: home.Home) -> None:
    first = identity.device_id(place)
    assert identity.device_id(place) == first
    Path(place.device).write_text("damaged")
    second = identity.device_id(place)
    assert second != first
    assert identity.device_id(place) == second
    assert [entry.name for entry in Path(place.root).glob("device*")] == ["device.json"]


def test_concurrent_first_calls_agree_on_the_id(place: home.Home) -> None:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(identity.device_id, [place] * 8))) == 1


def test_only_files_of_dead_processes_are_swept(place: home.Home) -> None:
    kept = Path(scratch.path(place, "mine"))
    kept.mkdir()
    for name in ("999999999-file", "no-number"):
        (Path(place.temporary) / name).write_text("x")
    (Path(place.temporary) / "999999998-folder" / "inner").mkdir(parents=True)
    scratch.sweep(place)
    assert list(Path(place.temporary).iterdir()) == [kept]


HEALTH = HealthReport(proof="golden", latency_p95_ns=1, memory_peak_bytes=1, kernels="builtin")
ORDER = (
    state_record.NONE,
    state_record.STAGED,
    state_record.VERIFIED,
    state_record.ACTIVATING,
    state_record.SOAKING,
    state_record.COMMITTED,
    state_record.ROLLING_BACK,
    state_record.ROLLED_BACK,
    state_record.SAFE,
)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ORDER, ORDER)))
def test_only_the_tables_transitions(place: home.Home, before: str, after: str) -> None:
    state = states.ModelState(place, StateRecord("m", state=before, target="r", target_runtime="t"))
    steps: dict[str, Callable[[], object]] = {
        state_record.STAGED: lambda: state.begin("r", "t", ()),
        state_record.VERIFIED: lambda: state.verified(HEALTH),
        state_record.ACTIVATING: state.activating,
        state_record.SOAKING: state.soaking,
        state_record.COMMITTED: state.commit,
        state_record.ROLLING_BACK: lambda: state.rolling_back("why"),
        state_record.SAFE: lambda: state.safe("why", None),
        state_record.ROLLED_BACK: lambda: state.roll_back("why"),
    }
    if after not in steps:
        assert all(after not in allowed for allowed in states.TRANSITIONS.values())
        return
    if after in states.TRANSITIONS[before]:
        steps[after]()
        stored = json.loads((Path(place.model("m")) / "state.json").read_text())
        assert stored["state"] == after
        assert journal.tail(place, 1)[0]["state"] == after
    else:
        with pytest.raises(states.InvalidTransition):
            steps[after]()
        assert not os.path.exists(place.model("m"))


def test_every_state_has_its_line_in_the_table() -> None:
    assert set(states.TRANSITIONS) == set(ORDER)
    assert all(states.TRANSITIONS[state] for state in ORDER)


def stored_state(place: home.Home) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((Path(place.model("m")) / "state.json").read_text())
    return body


def test_an_attempt_is_stored_with_its_terms_and_counted(place: home.Home) -> None:
    before = StateRecord("m", tries=2, reason="an earlier failure", attempts=Attempts().incremented("new"))
    state = states.ModelState(place, before)
    releases = tuple(f"r{number}" for number in range(12))
    state.begin("new", "t", releases, fallback="old", soak=SoakPolicy(7, 1), timeout_s=3.0)
    stored = stored_state(place)
    assert stored["target_history"] == list(releases[2:]), "the last ten"
    assert (stored["target"], stored["target_runtime"], stored["fallback"]) == ("new", "t", "old")
    assert (stored["soak"], stored["timeout_s"]) == ({"soak_ns": 7, "failure_limit": 1}, 3.0)
    assert (stored["tries"], stored["reason"]) == (0, None)
    assert stored["attempts"] == [{"release": "new", "count": 2}]


def test_an_attempt_has_no_timeout_and_no_soak_by_default(place: home.Home) -> None:
    state = states.ModelState(place, StateRecord("m", timeout_s=9.0, soak=SoakPolicy(1)))
    state.begin("new", "t", (), attempts=Attempts().incremented("other"))
    assert (state.record.timeout_s, state.record.soak, state.record.fallback) == (0.0, None, None)
    assert [(entry.release, entry.attempts) for entry in state.record.attempts.entries] == [
        ("other", 1),
        ("new", 1),
    ]


@pytest.mark.parametrize("missing", ["target", "target_runtime"])
def test_a_commit_needs_a_target_and_its_runtime(place: home.Home, missing: str) -> None:
    record = StateRecord("m", state=state_record.ACTIVATING, target="r", target_runtime="t")
    changes: dict[str, Any] = {missing: None}
    state = states.ModelState(place, replace(record, **changes))
    with pytest.raises(states.InvalidTransition, match="commit without a target"):
        state.commit()
    assert not os.path.exists(place.model("m"))


def test_a_commit_takes_the_targets_history_and_forgets_its_attempts(place: home.Home) -> None:
    record = StateRecord(
        "m",
        state=state_record.ACTIVATING,
        target="new",
        target_runtime="t2",
        target_history=("old",),
        runtimes={"old": "t1"},
        attempts=Attempts().incremented("new").incremented("other"),
    )
    state = states.ModelState(place, record)
    state.commit()
    stored = stored_state(place)
    assert (stored["runtimes"], stored["history"]) == ({"old": "t1", "new": "t2"}, ["old"])
    assert stored["attempts"] == [{"release": "other", "count": 1}]
    assert states.read(place, "m") == state.record


def test_each_try_of_a_rollback_is_counted(place: home.Home) -> None:
    state = states.ModelState(place, StateRecord("m", state=state_record.SOAKING, target="r"))
    for tries in (1, 2, 3):
        state.rolling_back("why")
        assert (stored_state(place)["tries"], stored_state(place)["reason"]) == (tries, "why")
    state.roll_back("it failed", HEALTH)
    assert (stored_state(place)["reason"], stored_state(place)["health"]) == ("it failed", HEALTH.to_json())


@pytest.mark.parametrize(
    ("serves", "fallback", "runtime", "kept"),
    [
        ("new", "old", "t2", True),
        ("old", "old", "t2", False),  # the previous release serves
        ("new", "new", "t2", False),  # it served before, and has its runtime
        ("new", "old", None, False),
        (None, "old", "t2", False),
    ],
)
def test_a_release_that_serves_on_after_a_failed_rollback_keeps_its_runtime(
    place: home.Home, serves: str | None, fallback: str, runtime: str | None, kept: bool
) -> None:
    record = StateRecord(
        "m",
        state=state_record.ROLLING_BACK,
        target="new",
        target_runtime=runtime,
        target_history=("old",),
        fallback=fallback,
        runtimes={"old": "t1"},
    )
    states.ModelState(place, record).safe("why", serves)
    stored = stored_state(place)
    assert stored["runtimes"] == ({"old": "t1", "new": "t2"} if kept else {"old": "t1"})
    assert stored["history"] == (["old"] if kept else [])


def test_attempts_and_removed_releases_change_while_the_state_stays(place: home.Home) -> None:
    record = StateRecord(
        "m",
        state=state_record.COMMITTED,
        target_history=("a", "b"),
        history=("b", "c"),
        runtimes={"a": "1", "b": "2", "c": "3"},
    )
    state = states.ModelState(place, record)
    state.count_attempt("x")
    state.count_attempt("x")
    assert stored_state(place)["attempts"] == [{"release": "x", "count": 2}]
    state.forget_attempts("x")
    assert stored_state(place)["attempts"] == []
    state.trim({"a", "c"})
    stored = stored_state(place)
    assert (stored["target_history"], stored["history"]) == (["a"], ["c"])
    assert stored["runtimes"] == {"a": "1", "c": "3"}
    assert stored["state"] == state_record.COMMITTED


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b""])
def test_a_damaged_state_counts_as_no_state(place: home.Home, content: bytes) -> None:
    assert states.read(place, "m") == StateRecord("m"), "no file: no state and no reason"
    folder = Path(place.model("m"))
    folder.mkdir()
    (folder / "state.json").write_bytes(content)
    record = states.load(place, "m").record
    assert (record.state, record.reason) == (state_record.NONE, states.DAMAGED)


def test_models_with_something_left_to_do_are_pending(place: home.Home) -> None:
    for state in ORDER:
        folder = Path(place.model(state.replace("_", "-")))
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"state": state}))
    assert states.pending(place) == ["activating", "rolling-back", "soaking", "staged", "verified"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("ENOSPC", "EQ501"),
        ("EDQUOT", "EQ501"),
        ("EFBIG", "EQ501"),
        ("EROFS", "EQ503"),
        ("EACCES", "EQ503"),
        ("EIO", "EQ522"),
    ],
)
def test_system_errors_map_to_codes(number: str, code: str) -> None:
    import errno

    mapped = errors.from_os(OSError(getattr(errno, number), "why", "/some/file"))
    assert mapped is not None
    assert (mapped.code, mapped.subject) == (code, "/some/file")
    assert errors.from_os(OSError(errno.ENOENT, "why")) is None


def test_no_hint_changes_the_owner_of_what_belongs_to_the_system() -> None:
    import errno

    for path, gives in (("/srv/edgeq/lock", True), ("/dev/null", False), ("/etc/passwd", False)):
        mapped = errors.from_os(PermissionError(errno.EACCES, "why", path))
        assert mapped is not None
        assert mapped.hint is not None
        assert ("chown" in mapped.hint) is gives
        assert path in mapped.hint
