"""Windows of an experiment are found by it, its events stay in order, and an older store gains the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgeq.store import Store
from edgeq.store.schema import MIGRATIONS


def window(seq: int, **more: Any) -> dict[str, Any]:
    body = {"boot": "b", "seq": seq, "model": "kws", "release": "r", "started_ns": 0, "ended_ns": 1}
    return {**body, **more}


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
        assert [one.seq for one in store.windows(experiment="e-1")] == [2]
        assert [one.seq for one in store.windows(model="kws", experiment="e-2")] == [3]
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


def test_a_store_of_before_experiments_is_migrated_and_keeps_its_windows(tmp_path: Path) -> None:
    from edgeq.store.engine import open_engine

    path = tmp_path / ".edgeq" / "store.db"
    engine = open_engine(path, MIGRATIONS[:1])
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO windows"
                " (device, device_id, boot, seq, model, release, started_ns, ended_ns, body)"
                " VALUES ('pi', 'd', 'b', 1, 'kws', 'r', 0, 1, '{}')"
            )
        )
    engine.dispose()
    with Store.open(tmp_path) as store:
        assert len(store.windows()) == 1
        assert store.experiments() == []
