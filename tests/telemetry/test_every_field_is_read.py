"""Every field of a window that a device sends changes something that the host shows."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.drift_reference import parse_reference
from edgeq.experiment import ExperimentConfig, SplitBy, analyze
from edgeq.monitor import field_summaries, judge_store
from edgeq.report import build_view
from edgeq.store import Store
from edgeq_agent.telemetry import window as window_module
from edgeq_agent.telemetry.ddsketch import Sketch
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import Window, parse, to_json
from tests.telemetry.golden import EVERY_FIELD, received, window_json

Change = Callable[[Any], Any]
RELEASES = ("a" * 64, "b" * 64)
CONFIG = ExperimentConfig(
    experiment="kws-bbbbbbbb-1", model="kws", release_a=RELEASES[0], release_b=RELEASES[1], by=SplitBy.CALLS,
    share=0.5, salt="s", arms={"pi": "ab"},
)  # fmt: skip


def add(count: float) -> Change:
    return lambda value: value + count


def swap(value: Any) -> Change:
    return lambda _: value


def move_one(counts: list[int]) -> list[int]:
    return [counts[0] - 1, counts[1] + 1, *counts[2:]]


# One change of each field, by its path in the JSON. A new field needs a row, and something that shows it.
CHANGES: dict[str, Change] = {
    "started_ns": add(-3600 * 10**9),
    "ended_ns": add(3600 * 10**9),
    "inferences": add(1),
    "errors": swap({"invoke": 2}),
    "latency.relative_accuracy": swap(0.02),
    "latency.counts": lambda counts: {str(int(index) + 3): count for index, count in counts.items()},
    "latency.count": add(0),
    "latency.sum_ns": add(10**9),
    "latency.min_ns": add(-70_000),
    "latency.max_ns": add(10**9),
    "inputs.name": swap("y"),
    "inputs.channels": lambda channels: [move_one(channels[0]), channels[1]],
    "output.predicted": move_one,
    "output.confidence": move_one,
    "memory_peak_bytes": add(10**9),
    "temperature_c": add(20),
    "deadline_misses": add(1),
    "unrecorded": add(1),
    "arm": swap("a"),
    "experiment": swap("another"),
    "keyed": add(1),
    "feedback.labelled": add(1),
    "feedback.correct": add(-1),
    "feedback.expired": add(1),
    "shadow.samples": add(1),
    "shadow.agree": add(-1),
    "shadow.signal": add(100.0),
    "shadow.noise": add(1.0),
    "shadow.dropped": swap(3),
    "shadow.failed": swap(3),
    "merged": swap(2),
    "interrupted": swap(1),
    "lost": swap(1),
    "clock_synced": swap(False),
    "uptime_ns": swap(2**60),
    "device_id": swap("another"),
    "boot": swap("another:1"),
    "seq": add(1),
    "model": swap("another"),
    "release": swap("a" * 64),
}
# It cannot change alone: validation requires the sum of the counts.
DERIVED = {"latency.count"}


def paths(kind: Any, prefix: str = "") -> list[str]:
    """Return the path of every field of a window, down to those that are not dataclasses."""
    parts = {
        "latency": Sketch, "inputs": window_module.InputCounts, "output": window_module.OutputCounts,
        "feedback": window_module.Feedback, "shadow": window_module.Shadow,
    }  # fmt: skip
    result = []
    for field in dataclasses.fields(kind):
        if not prefix and field.name in parts:
            result += paths(parts[field.name], f"{field.name}.")
        else:
            result.append(prefix + field.name)
    return result


def changed(path: str) -> dict[str, Any]:
    """Return the recorded window with one field changed."""
    body = window_json(EVERY_FIELD, merged=1)
    *parents, name = path.split(".")
    target: Any = body
    for parent in parents:
        target = target[parent]
        if parent == "inputs":
            target = target[0]
        if parent == "shadow":
            target = target["float32.tflite"]
    target[name] = CHANGES[path](copy.deepcopy(target.get(name)))
    return body


def reference() -> dict[str, Any]:
    """Return a drift reference that the recorded window matches."""
    window = parse(window_json(EVERY_FIELD))
    channels = [
        {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [10, 90, 90, 10]} for _ in window.inputs[0].channels
    ]
    return {
        "schema": "edgeq.reference/1",
        "inputs": [{"name": window.inputs[0].name, "channels": channels}],
        "output": {
            "classes": 3,
            "predicted": [70, 70, 60],
            "confidence": {"edges": [0.0, 0.5, 0.8, 1.0], "counts": [50, 100, 50]},
        },
    }


def shown(folder: Path, body: dict[str, Any]) -> str:
    """Return all that the host says of a store with one window: status, monitor, report, experiment."""
    with Store.open(folder) as store:
        for release in RELEASES:
            store.put_release(release, {"model": "kws"}, reference())
        window = received(body)
        store.ingest("pi", [window], device_id=window.window.device_id)
        streams = judge_store(store)
        view = build_view(store)
        records = store.windows(experiment=CONFIG.experiment)
        result = analyze(
            CONFIG, records, dict.fromkeys(RELEASES, parse_reference(reference(), subject="test"))
        )
        document = {
            "identity": [(record.device_id, record.window.boot, record.window.seq) for record in records],
            "status": [summary.to_json() for summary in field_summaries(store, device="pi")],
            "lines": [summary.line for summary in field_summaries(store, device="pi")],
            "monitor": [dataclasses.asdict(stream.verdict) for stream in streams if stream.verdict],
            "tables": [table.rows for table in (view.field, view.streams) if table is not None],
            "experiment": {**result.to_dict(), "data_sha256": None},
        }
    return json.dumps(document, default=repr)


def test_every_field_of_the_window_has_a_change() -> None:
    assert set(paths(Window)) == set(CHANGES)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what the host shows of the recorded window."""
    return shown(tmp_path_factory.mktemp("unchanged"), window_json(EVERY_FIELD))


@pytest.mark.parametrize("path", sorted(set(CHANGES) - DERIVED))
def test_a_changed_field_changes_what_is_shown(tmp_path: Path, unchanged: str, path: str) -> None:
    body = changed(path)
    assert to_json(parse(body)) != window_json(EVERY_FIELD)
    assert shown(tmp_path, body) != unchanged


def test_a_field_that_nothing_reads_changes_nothing(tmp_path: Path, unchanged: str) -> None:
    body = window_json(EVERY_FIELD, throttled=3)
    assert shown(tmp_path, body) == unchanged


# A merged window has the identity of the newer one, and the input names of their common reference. Windows
# of different relative accuracy do not merge: see test_window.py.
OF_THE_NEWER = {"device_id", "boot", "seq", "model", "release", "inputs.name"}


@pytest.mark.parametrize(
    "path", sorted(set(CHANGES) - DERIVED - OF_THE_NEWER - {"latency.relative_accuracy"})
)
def test_a_changed_field_of_the_older_window_changes_the_merged_one(path: str) -> None:
    newer = parse(window_json("arm b again"))
    merged = merge_windows(parse(window_json(EVERY_FIELD)), newer)
    assert merge_windows(parse(changed(path)), newer) != merged


@pytest.mark.parametrize(
    "key",
    [
        "memory_peak_bytes", "temperature_c", "deadline_misses", "unrecorded", "shadow", "feedback", "merged",
        "errors", "latency_ns", "inferences", "started_ns", "ended_ns",
    ],
)  # fmt: skip
def test_the_summary_has_the_figure(unchanged: str, key: str) -> None:
    document = json.loads(unchanged)
    assert document["status"][0][key] is not None
