"""Experiments in the store: their windows and their events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.store import ReceivedWindow, Store
from tests.telemetry.golden import received, window_json


def window(seq: int, **more: Any) -> ReceivedWindow:
    return received(window_json("verb infer", boot="b", seq=seq, **more))


def test_windows_are_found_by_their_experiment(tmp_path: Path) -> None:
    sent = [
        window(1),
        window(2, experiment="e-1", arm="a"),
        window(3, experiment="e-2"),
        window(4, experiment=None),
    ]
    with Store.open(tmp_path) as store:
        store.ingest("pi", sent)
        assert store.ingest("pi", sent).duplicates == 4
        assert [one.window.seq for one in store.windows(experiment="e-1")] == [2]
        assert [one.window.seq for one in store.windows(model="kws", experiment="e-2")] == [3]
        assert store.windows(experiment="e-3") == []
        assert len(store.windows()) == 4


def test_events_come_back_in_order_with_who_and_when(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for event in ("started", "promoted", "closed"):
            store.record_experiment("e-1", event, "ann", {"event": event})
        store.record_experiment("e-2", "started", "bob", {})
        events = store.experiments("e-1")
        assert [(one.event, one.actor) for one in events] == [
            ("started", "ann"), ("promoted", "ann"), ("closed", "ann")
        ]  # fmt: skip
        assert events[0].at_ns <= events[1].at_ns
        assert len(store.experiments()) == 4
