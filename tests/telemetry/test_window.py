"""The window's one format: recorded windows are read and written byte for byte; invalid ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import wire
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import (
    MIXED,
    Feedback,
    Shadow,
    WindowError,
    parse,
    parse_unnumbered,
    to_json,
)
from tests.telemetry.golden import EVERY_FIELD, entries, window_json


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["name"])
def test_a_recorded_window_is_written_as_it_was_read(entry: dict[str, Any]) -> None:
    assert wire.canonical(to_json(parse(entry["window"]))) == wire.canonical(entry["window"])


@pytest.mark.parametrize(
    "entry", [each for each in entries() if "merged_from" in each], ids=lambda e: e["name"]
)
def test_windows_merge_as_they_did_when_they_were_recorded(entry: dict[str, Any]) -> None:
    windows = [parse(window_json(name)) for name in entry["merged_from"]]
    merged = parse(entry["window"])
    assert merge_windows(*windows) == merged
    one_by_one = windows[0]
    for window in windows[1:]:
        one_by_one = merge_windows(one_by_one, window)
    assert one_by_one == merged


def test_fields_are_read_into_their_types() -> None:
    window = parse(window_json(EVERY_FIELD))
    assert window.feedback == Feedback(labelled=20, correct=17, expired=5)
    assert window.shadow["float32.tflite"] == Shadow(samples=12, agree=11, signal=3.25, noise=0.125)
    assert window.shadow["c" * 12] == Shadow(dropped=2, failed=1)
    assert (window.arm, window.experiment, window.keyed) == ("b", "kws-bbbbbbbb-1", 4)
    assert (window.deadline_misses, window.unrecorded, window.merged) == (1, 0, 1)
    plain = parse(window_json("verb infer"))
    assert (plain.deadline_misses, plain.arm, plain.feedback, plain.shadow) == (None, None, None, {})


def test_null_arm_and_experiment_stand_for_several() -> None:
    window = parse(window_json("verb infer", arm=None, experiment=None))
    assert (window.arm, window.experiment) == (MIXED, MIXED)
    assert to_json(window)["arm"] is None
    assert merge_windows(window, parse(window_json("verb infer", arm="b"))).arm == MIXED


def test_an_empty_sketch_may_have_null_extremes() -> None:
    empty = {"relative_accuracy": 0.01, "counts": {}, "count": 0, "sum_ns": 0, "min_ns": None, "max_ns": None}
    assert parse(window_json("failures alone", latency=empty)).latency.max_ns == 0


def test_the_recorded_answer_of_the_verb_telemetry_is_read() -> None:
    path = Path(__file__).parents[1] / "agent" / "wire" / "v1" / "telemetry.jsonl"
    messages = [wire.parse(line) for line in wire.split_lines([path.read_bytes()])]
    (body,) = [message["window"] for message in messages if message["event"] == "window"]
    assert to_json(parse(body)) == body


def test_unknown_fields_are_ignored() -> None:
    assert parse(window_json(EVERY_FIELD, entropy=[1, 2])) == parse(window_json(EVERY_FIELD))


def test_a_window_without_a_number_is_for_the_outbox_only() -> None:
    body = window_json("verb infer")
    for name in ("schema", "device_id", "boot", "seq", "model", "release"):
        del body[name]
    assert to_json(parse_unnumbered(body)) == body
    with pytest.raises(WindowError, match=r"schema: expected edgeq\.window/1, got null"):
        parse(body)


INVALID: list[tuple[str, Any, str]] = [
    ("schema", "edgeq.window/9", "schema: expected edgeq.window/1"),
    ("device_id", "", "device_id: expected a printable text"),
    ("boot", "", "boot: expected a printable text"),
    ("boot", "a\nb", "boot: expected a printable text"),
    ("model", 7, "model: expected a printable text"),
    ("release", None, "release: expected a printable text"),
    ("release", "x" * 501, "release: expected a printable text"),
    ("seq", 0, "seq: expected a whole number from 1"),
    ("seq", True, "seq: expected a whole number"),
    ("seq", 2**63, "seq: expected a whole number"),
    ("seq", 1.5, "seq: expected a whole number"),
    ("started_ns", -1, "started_ns: expected a whole number"),
    ("ended_ns", 1, "ended_ns: expected at least started_ns"),
    ("inferences", "3", "inferences: expected a whole number"),
    ("errors", {"oom": -1}, "errors: expected counts by kind"),
    ("errors", {"a\nb": 1}, "errors: expected counts by kind"),
    ("errors", [], "errors: expected counts by kind"),
    ("latency", None, "latency: expected a sketch"),
    ("latency.relative_accuracy", 0.0, "latency.relative_accuracy"),
    ("latency.relative_accuracy", True, "latency.relative_accuracy"),
    ("latency.counts", {"x": 1}, "latency.counts: expected counts by bucket"),
    ("latency.counts", {"99999999999": 3}, "latency.counts: expected counts by bucket"),
    ("latency.counts", {"690": 2}, "latency.count: expected 2, the sum of counts, got 60"),
    ("latency.min_ns", None, "latency.min_ns"),
    ("latency.max_ns", 1, "latency.max_ns: expected at least min_ns"),
    ("memory_peak_bytes", -1, "memory_peak_bytes: expected a whole number"),
    ("memory_peak_bytes", 1.5, "memory_peak_bytes: expected a whole number"),
    ("temperature_c", "51", "temperature_c: expected a number"),
    ("temperature_c", float("nan"), "temperature_c: expected a number"),
    ("temperature_c", float("inf"), "temperature_c: expected a number"),
    ("temperature_c", True, "temperature_c: expected a number"),
    ("deadline_misses", -1, "deadline_misses: expected a whole number"),
    ("unrecorded", 0.5, "unrecorded: expected a whole number"),
    ("merged", 0, "merged: expected a whole number from 1"),
    ("inputs", {}, "inputs: expected a list"),
    ("inputs", [7], "inputs: expected a name and channels"),
    ("inputs", [{"name": "x"}], "inputs.channels: expected a list of counts"),
    ("inputs", [{"channels": [[1]]}], "inputs.name: expected a text"),
    ("inputs", [{"name": "x", "channels": [[1, -2]]}], "inputs.channels: expected a list of counts"),
    ("output", None, "output: expected an object"),
    ("output", {"predicted": [1.5], "confidence": []}, "output.predicted: expected a list of counts"),
    ("output", {"predicted": [1]}, "output.confidence: expected a list of counts"),
    ("arm", 3, "arm: expected a printable text"),
    ("arm", "", "arm: expected a printable text"),
    ("experiment", "a\nb", "experiment: expected a printable text"),
    ("experiment", "x" * 201, "experiment: expected a printable text"),
    ("keyed", -1, "keyed: expected a whole number"),
    ("feedback", [], "feedback: expected an object"),
    ("feedback", {"labelled": 1}, "feedback.correct: expected a whole number"),
    ("feedback", {"labelled": 1, "correct": True}, "feedback.correct: expected a whole number"),
    ("feedback", {"labelled": 1, "correct": 2}, "feedback.correct: expected at most labelled, 1, got 2"),
    ("feedback.expired", -1, "feedback.expired: expected a whole number"),
    ("shadow", [], "shadow: expected an object"),
    ("shadow", {"": {}}, "shadow: expected printable names"),
    ("shadow", {"f": 3}, "shadow.f: expected an object"),
    ("shadow", {"f": {"samples": 1, "agree": 2}}, "shadow.f.agree: expected at most samples, 1"),
    ("shadow", {"f": {"noise": float("inf")}}, "shadow.f.noise: expected a number"),
]


@pytest.mark.parametrize(("path", "value", "reason"), INVALID, ids=[f"{p}={v!r}"[:40] for p, v, _ in INVALID])
def test_an_invalid_field_is_named(path: str, value: Any, reason: str) -> None:
    body = window_json(EVERY_FIELD)
    *parents, name = path.split(".")
    target: Any = body
    for parent in parents:
        target = target[parent]
    target[name] = value
    with pytest.raises(WindowError) as caught:
        parse(body)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_a_value_that_is_not_an_object_is_refused(value: Any) -> None:
    with pytest.raises(WindowError, match="expected a window"):
        parse(json.loads(json.dumps(value)))


def test_windows_with_other_bins_or_sketches_do_not_merge() -> None:
    first = window_json("verb infer")
    output = {"predicted": [40], "confidence": first["output"]["confidence"]}
    for changes, field in (
        ({"output": output}, "output.predicted"),
        ({"inputs": []}, "inputs"),
        ({"latency": {**first["latency"], "relative_accuracy": 0.02}}, "latency.relative_accuracy"),
    ):
        with pytest.raises(WindowError) as caught:
            merge_windows(parse(first), parse({**first, **changes}))
        assert caught.value.field == field
