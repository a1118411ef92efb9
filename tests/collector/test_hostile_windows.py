"""Windows of a hostile or damaged device are refused, or harmless; no other device is affected.

Each test has a good device beside the bad one: what the host says of the good one must not change.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.cli import main
from edgeq.collector import collect, window_checks
from edgeq.collector.quarantine import retry_quarantined
from edgeq.errors import AgentProtocolError, StoreError
from edgeq.fleet.agent.client import AgentMessage, OnEvent
from edgeq.monitor import field_summaries, judge_store
from edgeq.report.build import build_view
from edgeq.store import ReceivedWindow, RefusedRecord, Store
from tests.report.conftest import RELEASE, reference_document, window_document

NOW_NS = 1_900_000_000 * 10**9
Patch = Callable[[dict[str, Any]], None]


def good(seq: int = 1, device_id: str = "d-bad") -> dict[str, Any]:
    """Return a window that the host accepts."""
    import numpy as np

    body = json.loads(json.dumps(window_document(seq, np.random.default_rng(seq), shifted=False)))
    return {**body, "device_id": device_id, "seq": seq}


class Scripted:
    """An agent that sends the given windows once."""

    def __init__(self, windows: list[Any], device_id: str) -> None:
        self.windows, self.device_id = windows, device_id

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = 60,
        on_event: OnEvent | None = None,
    ) -> Mapping[str, Any]:
        """Send what is left."""
        assert on_event is not None
        windows, self.windows = self.windows, []
        for window in windows:
            on_event(AgentMessage.of({"event": "window", "window": window}))
        return {"device_id": self.device_id, "pending": 0}


def latency(accuracy: float, bucket: int, count: int = 10) -> dict[str, Any]:
    return {"relative_accuracy": accuracy, "counts": {str(bucket): count}, "count": count, "sum_ns": count,
            "min_ns": 1, "max_ns": 1}  # fmt: skip


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if kind is list else {"x": value}
    return value


REFUSED: dict[str, dict[str, Any]] = {
    "a coarse sketch with a bucket beyond floats": {"latency": latency(0.5, 20_000)},
    "a coarse sketch": {"latency": latency(0.5, 3)},
    "another accuracy": {"latency": latency(0.02, 1)},
    "almost no accuracy": {"latency": latency(1e-300, 1)},
    "an accuracy of almost one": {"latency": latency(0.9999999999999999, 19)},
    "a bucket that no latency has": {"latency": latency(0.01, 2300)},
    "more errors than inferences": {"errors": {"invoke": 2**52}},
    "more inferences than floats count": {"inferences": 2**62},
    "nested lists": {"extra": nested(900)},
    "nested objects": {"extra": nested(900, dict)},
    "nested just too deep": {"extra": nested(64)},
    "escapes in an error's kind": {"errors": {"\x1b]0;owned\x07\x1b[2J": 3}},
    "a bell in the model": {"model": "kws\x07"},
    "a right-to-left override in the boot": {"boot": "b\u202eoot"},
    "another model than the release's": {"model": "other"},
    "inputs with other bins": {"inputs": [{"name": "x", "channels": [[1, 2]]}]},
    "inputs with another name": {"inputs": [{"name": "y", "channels": [[5] * 10]}]},
    "more channels": {"inputs": [{"name": "x", "channels": [[5] * 10, [5] * 10]}]},
    "other classes": {"output": {"predicted": [50], "confidence": [5] * 10}},
    "other confidence bins": {"output": {"predicted": [50, 0, 0, 0], "confidence": [50]}},
    "a number beyond what an agent accepts": {"schema": "edgeq.window/9", "seq": 2**63 - 1},
    "no boot": {"boot": ""},
}  # fmt: skip
HARMLESS: dict[str, dict[str, Any]] = {
    "a shadow with extreme energies": {"shadow": {"f": {"samples": 1, "signal": 5e-324, "noise": 1.7e308}}},
    "a shadow with endless energies": {"shadow": {"f": {"samples": 1, "signal": 1.7e308, "noise": 1.7e308}}},
    "the largest counts": {
        "inferences": 2**53,
        "inputs": [{"name": "x", "channels": [[2**53] * 10]}],
        "output": {"predicted": [2**53] * 4, "confidence": [2**53] * 10},
    },
    "an empty window": {
        "inferences": 0, "latency": {**latency(0.01, 1), "counts": {}, "count": 0},
        "inputs": [{"name": "x", "channels": [[0] * 10]}],
        "output": {"predicted": [0] * 4, "confidence": [0] * 10},
    },
    "a clock in the year 2116": {"started_ns": 2**62, "ended_ns": 2**62},
    "the largest sums": {"latency": {**latency(0.01, 2184), "sum_ns": 2**63 - 1, "max_ns": 2**63 - 1}},
}  # fmt: skip


def everything(store: Store, device: str) -> str:
    """Return what the host says of one device."""
    streams = [each for each in judge_store(store) if each.device == device]
    return repr([streams, field_summaries(store, device=device)])


@pytest.fixture
def site(workspace: Path) -> Path:
    """Return the current workspace, with the release and windows of a good device."""
    with Store.open(workspace) as store:
        store.put_release(RELEASE, {"model": "kws"}, reference_document())
        windows = [good(seq, "d-good") for seq in (1, 2, 3)]
        collect(Scripted(windows, "d-good"), "good", store=store, now_ns=lambda: NOW_NS)
    return workspace


@pytest.mark.first_is_quick
@pytest.mark.parametrize("patch", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_with_a_record_and_the_others_stay_the_same(
    site: Path, patch: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(site) as store:
        before = everything(store, "good")
        windows = [good(1), {**good(2), **patch}, good(3)]
        got = collect(Scripted(windows, "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS)
        assert (got.new, got.refused) == (2, 1)
        assert len(store.quarantine("bad")) == 1
        assert everything(store, "good") == before
    assert main(["monitor"]) == 0
    printed = capsys.readouterr()
    assert "bad: 1 records were refused" in printed.err
    assert "good: kws" in printed.out
    assert main(["quarantine", "list", "bad"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("patch", HARMLESS.values(), ids=HARMLESS.keys())
def test_it_is_harmless(site: Path, patch: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(site) as store:
        before = everything(store, "good")
        windows = [good(1), {**good(2), **patch}, {**good(3), **patch}]
        assert collect(Scripted(windows, "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS).new == 3
        assert everything(store, "good") == before
        build_view(store)
    assert main(["monitor", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["streams"]) == 2


@pytest.mark.first_is_quick
@pytest.mark.parametrize("patch", [*REFUSED.values(), *HARMLESS.values()], ids=[*REFUSED, *HARMLESS])
def test_a_window_that_an_earlier_version_stored_ends_nothing(
    site: Path, patch: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = site / ".edgeq" / "store.db"
    with Store.open(site) as store:
        before = everything(store, "good")
        collect(Scripted([good(1), good(2), good(3)], "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS)
    with closing(sqlite3.connect(path)) as database, database:
        text = json.dumps({**good(2), **patch}, sort_keys=True, separators=(",", ":"))
        statement = "UPDATE windows SET body = ? WHERE device = 'bad' AND seq = 2"
        assert database.execute(statement, (text,)).rowcount == 1
    for command in (["monitor"], ["monitor", "good"], ["report", "-o", "page.html"], ["quarantine", "list"]):
        assert main(command) == 0, command
        assert "\x1b" not in capsys.readouterr().out
    with Store.open(site) as store:
        assert everything(store, "good") == before


def test_a_device_cannot_take_the_numbers_of_another_one(site: Path) -> None:
    owners = {"d-good": {"good", "second name"}, "d-bad": {"bad"}}
    forged = {**good(4, "d-good"), "inferences": 51}
    with Store.open(site) as store:
        before = everything(store, "good")
        with pytest.raises(AgentProtocolError, match="device_id is that of 'good'") as caught:
            collect(Scripted([forged], "d-good"), "bad", store=store, owners=owners, now_ns=lambda: NOW_NS)
        assert "device.json" in caught.value.hint
        assert everything(store, "good") == before
        genuine = Scripted([good(4, "d-good")], "d-good")
        got = collect(genuine, "good", store=store, owners=owners, now_ns=lambda: NOW_NS)
        assert (got.new, got.refused) == (1, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 5000, '{"schema":"edgeq.window/1"}'])
def test_a_stored_window_that_is_damaged_goes_to_the_quarantine(site: Path, text: str) -> None:
    with closing(sqlite3.connect(site / ".edgeq" / "store.db")) as database, database:
        database.execute("UPDATE windows SET body = ? WHERE seq = 2", (text,))
    with Store.open(site) as store:
        assert [record.window.seq for record in store.windows()] == [1, 3]
        assert store.set_aside_invalid() == 1
        (aside,) = store.quarantine("good")
        assert "stored window" in aside.reason
        assert [record.window.seq for record in store.windows()] == [1, 3]


def test_windows_of_two_accuracies_that_were_stored_are_summed_up_without_the_odd_ones(site: Path) -> None:
    with Store.open(site) as store:
        odd = {**good(9, "d-good"), "latency": latency(0.02, 1)}
        store.ingest("good", [ReceivedWindow.parse(odd)], device_id="d-good")
        (stream,) = judge_store(store)
        assert stream.verdict is not None
        assert stream.field.windows == 3
        assert stream.problem is not None
        assert "1 windows are left out" in stream.problem


@pytest.mark.parametrize("reference", [{"schema": "x"}, {}, {"schema": "edgeq.reference/1", "inputs": 3}])
def test_a_damaged_reference_is_a_line_of_its_stream(
    site: Path, reference: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = "b" * 64
    with Store.open(site) as store:
        store.put_release(other, {"model": "kws"}, reference)
        windows = [{**good(1), "release": other}]
        assert collect(Scripted(windows, "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS).new == 1
    assert main(["monitor"]) == 0
    printed = capsys.readouterr()
    assert "bad: release bbbbbbbbbbbb in the store" in printed.err
    assert "no alarm" in printed.out
    assert main(["report", "-o", "page.html"]) == 0
    assert "could not be judged" in capsys.readouterr().out


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))[:1]
    return [path for key, inner in items for path in [(*at, key), *_paths(inner, (*at, key))]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON_VALUES, seq=st.integers(4, 2**40), place=st.integers(0, 1000))
def test_no_value_in_any_field_ends_anything(site: Path, value: Any, seq: int, place: int) -> None:
    body = {**good(), "seq": seq}
    paths = _paths(body)
    path = paths[place % len(paths)]
    target: Any = body
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with Store.open(site) as store:
        got = collect(Scripted([body], "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS)
        assert got.new + got.duplicates + bool(got.reasons) == 1
        everything(store, "bad")
        build_view(store)


def test_a_full_quarantine_stops_its_device_alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.database.MOST_QUARANTINED", 3)
    with Store.open(site) as store:
        store.ingest("bad", [], refused=[RefusedRecord(reason="odd", body=number) for number in range(3)])
        with pytest.raises(StoreError, match="bad: its quarantine is full") as caught:
            collect(Scripted([good(1), {}], "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS)
        assert "edgeq quarantine drop --device bad" in caught.value.hint
        assert [record.device for record in store.windows()] == ["good"] * 3
        assert collect(Scripted([{}], "d-good"), "good", store=store, now_ns=lambda: NOW_NS).refused == 1


def test_a_huge_record_is_kept_shortened(site: Path) -> None:
    with Store.open(site) as store:
        collect(Scripted([{"x": "y" * 10**6}], "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS)
        (record,) = store.quarantine("bad")
        assert record.body["shortened_from_bytes"] > 10**6
        assert len(record.body["begins"]) < 20_000


def test_the_quarantine_is_listed_shown_retried_and_dropped(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finer = good(2)
    finer["latency"] = {**finer["latency"], "relative_accuracy": 0.005}
    with Store.open(site) as store:
        windows = [good(1), finer, {**good(3), "inferences": "x"}]
        collect(Scripted(windows, "d-bad"), "bad", store=store, now_ns=lambda: NOW_NS)
    assert main(["quarantine", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["records"]
    assert (first["device"], "relative_accuracy" in first["reason"]) == ("bad", True)
    assert main(["quarantine", "show", str(second["id"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["body"]["inferences"] == "x"
    with Store.open(site) as store, monkeypatch.context() as later:
        later.setattr(window_checks, "RELATIVE_ACCURACY", 0.005)  # as in a version that accepts it
        outcomes = retry_quarantined(store, store.quarantine("bad"), now_ns=lambda: NOW_NS)
        assert [outcome.reason is None for outcome in outcomes] == [True, False]
        assert [each.window.seq for each in store.windows(device="bad")] == [1, 2]
    assert main(["quarantine", "retry", "--all", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["stored"], [each["id"] for each in document["refused"]]) == (0, [second["id"]])
    assert main(["quarantine", "drop", "--device", "bad", "-y"]) == 0
    assert "1 records deleted" in capsys.readouterr().out
    with Store.open(site) as store:
        assert store.quarantine() == []
        assert store.audit()[0].action == "quarantine.drop"
    assert main(["quarantine", "show", str(second["id"])]) == 2
    assert main(["quarantine", "drop"]) == 2
    assert main(["quarantine", "list"]) == 0
