"""Telemetry of the runtime SDK: windows, counters, missed deadlines, and the shadow."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent import Runtime
from edgeq_agent.activation import counters
from edgeq_agent.inference import model
from edgeq_agent.sdk import counters as sdk_counters
from edgeq_agent.sdk.call_metrics import CallMetrics, Totals
from edgeq_agent.sdk.errors import DeadlineMissed, InputMismatch, InputNotFinite
from edgeq_agent.sdk.shadow import Shadows
from edgeq_agent.sdk.tensors import Feed
from edgeq_agent.storage import clock
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry.window import parse
from edgeq_agent.telemetry.window_builder import Reference, WindowBuilder
from tests.agent.held_calls import HeldCalls, alive
from tests.eventually import until

pytestmark = pytest.mark.convert


def _windows(on: Any) -> list[dict[str, Any]]:
    windows = [event["window"] for event in on.call("telemetry", limit=1000).of("window")]
    for window in windows:
        parse(window)
    return windows


def _counters(on: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((on.home / "models" / "tiny" / "counters.json").read_text())
    return body


def test_windows_count_as_the_verb_infer_does(serving: Any, tiny_data: Any, kit: Any) -> None:
    samples = tiny_data[:150]
    serving.call("infer", kit.npz(input_0=samples), model="tiny", window=150).result  # noqa: B018
    with Runtime("tiny", str(serving.home)) as rt:
        for sample in samples:
            rt.infer(sample)
    verb, mine = _windows(serving)
    assert mine["inferences"] == verb["inferences"] == mine["latency"]["count"] == 150
    assert mine["inputs"] == verb["inputs"]
    assert mine["output"] == verb["output"]
    assert (mine["errors"], mine["deadline_misses"], mine["unrecorded"]) == ({}, 0, 0)
    assert set(verb) <= set(mine)


def test_the_models_own_integers_count_as_their_real_values(
    serving: Any, tiny_models: Path, tiny_data: Any, kit: Any
) -> None:
    integers, _ = kit.run_here(tiny_models / "int8.tflite", tiny_data[:100])
    serving.call("infer", kit.npz(input_0=integers), model="tiny", window=100).result  # noqa: B018
    with Runtime("tiny", str(serving.home)) as rt:
        for sample in integers:
            rt.infer(sample)
    verb, mine = _windows(serving)
    assert (mine["inputs"], mine["output"]) == (verb["inputs"], verb["output"])


@pytest.mark.slow
@pytest.mark.parametrize(("side", "every"), [(32, 1), (64, 2), (128, 8)])
def test_of_large_inputs_of_integers_every_nth_is_counted(side: int, every: int) -> None:
    feed = Feed(model.Tensor("x", 0, [side, side, 1], np.dtype(np.int8), 0.5, 0), 1)
    sums = np.zeros((4 * every, 1), np.float32)
    for row in sums:
        feed.take(np.full((1, side, side, 1), 6, np.int8), row)
    assert np.isnan(sums[:, 0]).tolist() == ([True] * (every - 1) + [False]) * 4
    assert feed.means(sums).tolist() == [[3.0]] * 4


def test_a_window_ends_by_count_and_by_time(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home), window=256, window_s=3600, window_least_s=0.0) as rt:
        for _ in range(300):
            rt.infer(tiny_data[0])
        until(lambda: _windows(serving))
        (window,) = _windows(serving)
        assert window["inferences"] == 256  # a ring; the other 44 wait for more, or for their time
    assert [each["inferences"] for each in _windows(serving)] == [256, 44]
    with Runtime("tiny", str(serving.home), window_s=0.2) as rt:
        rt.infer(tiny_data[0])
        until(lambda: len(_windows(serving)) == 3)


def test_without_telemetry_there_are_counters_but_no_windows(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        for _ in range(600):
            rt.infer(tiny_data[0])
    assert _windows(serving) == []
    assert _counters(serving)["calls"] == 600


def test_errors_are_counted_by_kind(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home)) as rt:
        rt.infer(tiny_data[0])
        for _ in range(2):
            with pytest.raises(InputNotFinite):
                rt.infer(tiny_data[0] * np.nan)
        with pytest.raises(InputMismatch):
            rt.infer(tiny_data)
    (window,) = _windows(serving)
    assert window["errors"] == {"input_not_finite": 2, "input_mismatch": 1}
    assert (window["inferences"], window["latency"]["count"]) == (4, 1)
    body = _counters(serving)
    assert (body["calls"], body["errors"]) == (1, 3)
    assert body["errors_by_kind"] == window["errors"]
    assert body["boot_id"] == clock.read_boot_id()


@pytest.mark.slow
def test_outputs_that_are_not_finite_are_counted(
    ready: Any, tiny_models: Path, tiny_data: Any, kit: Any
) -> None:
    reference = kit.reference_of(tiny_data, classes=3, channels=2)
    bundle = kit.bundle_of(tiny_models / "sum.tflite", tiny_data[:5], reference, name="sum")
    bundle.send(ready)
    assert ready.call("activate", **bundle.request()).result["changed"]
    with Runtime("sum", str(ready.home)) as rt:
        assert not np.isfinite(rt.infer(np.full((6, 6, 2), 3e38, np.float32))).any()
        rt.infer(tiny_data[0])
    (window,) = _windows(ready)
    assert window["errors"] == {"output_not_finite": 1}
    assert (window["inferences"], sum(window["output"]["predicted"])) == (2, 1)
    body = json.loads((ready.home / "models" / "sum" / "counters.json").read_text())
    assert (body["calls"], body["errors_by_kind"]) == (2, {"output_not_finite": 1})


def test_late_answers_are_counted_and_raise_when_strict(
    serving: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime("tiny", str(serving.home), deadline_s=1e-9) as rt:
        assert rt.infer(tiny_data[0]).shape == (3,)
        assert rt.infer(tiny_data[0], deadline_s=100).shape == (3,)
    with Runtime("tiny", str(serving.home), pool=1, deadline_s=1e-9, strict=True) as rt:
        with pytest.raises(DeadlineMissed, match="EQ542"):
            rt.infer(tiny_data[0])
        calls = HeldCalls(monkeypatch)
        calls.start(rt.infer, tiny_data[0], deadline_s=100)
        until(lambda: calls.begun == 1)
        with pytest.raises(DeadlineMissed, match="all 1 interpreters were busy"):
            rt.infer(tiny_data[0], deadline_s=0.05)
        calls.finish()
    first, second = _windows(serving)
    assert (first["deadline_misses"], first["errors"], first["inferences"]) == (1, {}, 2)
    assert (second["deadline_misses"], second["errors"], second["inferences"]) == (2, {"deadline": 1}, 3)
    body = _counters(serving)
    assert (body["calls"], body["deadline_misses"], body["errors"]) == (4, 3, 1)


@pytest.mark.parametrize("deadline_s", [0, -1, True, "1"])
def test_an_invalid_deadline_is_refused(serving: Any, deadline_s: Any) -> None:
    with pytest.raises(Exception, match="EQ512"):
        Runtime("tiny", str(serving.home), deadline_s=deadline_s)


@pytest.mark.slow
def test_counters_are_written_while_it_runs_and_at_most_once_a_second(serving: Any, tiny_data: Any) -> None:
    path = serving.home / "models" / "tiny" / "counters.json"
    seen: set[int] = set()
    with Runtime("tiny", str(serving.home)) as rt:
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            rt.infer(tiny_data[0])
            if path.exists():
                body = json.loads(path.read_text())  # never half a file
                seen.add(body["updated_ns"])
                assert list(body["processes"].values()) == [rt.release]
    assert 2 <= len(seen) <= 4
    assert _counters(serving)["processes"] == {}


_CRASH = """
import os, signal, sys, time
import numpy as np
from edgeq_agent import Runtime
rt = Runtime("tiny", sys.argv[1])
for _ in range(5): rt.infer(np.zeros((6, 6, 2), np.float32))
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
time.sleep(1.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_crashes_is_counted_once_for_its_release(
    serving: Any, int8_bundle: Any, tiny_data: Any
) -> None:
    path = serving.home / "models" / "tiny" / "counters.json"
    command = [sys.executable, "-c", _CRASH, str(serving.home), str(path)]
    done = subprocess.run(
        command, env=serving.environment, timeout=60, check=False, stderr=subprocess.DEVNULL
    )
    assert done.returncode == -signal.SIGKILL
    assert _counters(serving)["crashes"] == 0  # not noticed yet
    for _ in range(2):
        with Runtime("tiny", str(serving.home)) as rt:
            rt.infer(tiny_data[0])
        body = _counters(serving)
        assert (body["release"], body["crashes"]) == (int8_bundle.release, 1)
    assert body["calls"] == 7
    assert body["processes"] == {}


def test_two_runtimes_of_a_model_add_up(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home)) as one, Runtime("tiny", str(serving.home)) as other:
        for _ in range(10):
            one.infer(tiny_data[0])
            other.infer(tiny_data[0])
    assert _counters(serving)["calls"] == 20


@pytest.mark.slow
def test_concurrent_runtimes_lose_no_count(serving: Any) -> None:
    release = "f" * 64

    def count() -> None:
        mine = sdk_counters.Counters(Home(str(serving.home)), "tiny")
        for calls in range(1, 101):
            while not mine.store(release, release, {release: Totals(calls)}, {}):
                time.sleep(0)

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert _counters(serving)["calls"] == 600


def test_counters_of_another_boot_are_ignored(serving: Any, tiny_data: Any, int8_bundle: Any) -> None:
    path = serving.home / "models" / "tiny" / "counters.json"
    known = {"calls": 5, "errors": 0, "errors_by_kind": {}, "deadline_misses": 0, "crashes": 0}
    before = {"schema": counters.SCHEMA, "boot_id": "0" * 8, "releases": {int8_bundle.release: known}}
    for text in (json.dumps(before), "", "[]"):
        path.write_text(text)
        with Runtime("tiny", str(serving.home)) as rt:
            rt.infer(tiny_data[0])
        assert _counters(serving)["calls"] == 1


def test_counters_drop_the_oldest_releases(serving: Any) -> None:
    mine = sdk_counters.Counters(Home(str(serving.home)), "tiny")
    for number in range(20):
        release = f"{number:064x}"
        assert mine.store(release, release, {release: Totals(1)}, {})
    assert len(_counters(serving)["releases"]) <= 9
    assert _counters(serving)["release"] == f"{19:064x}"


@pytest.mark.slow
def test_a_full_disk_loses_no_answer_and_no_count(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home), window_s=0.2) as rt:
        rt.infer(tiny_data[0])
        until(lambda: len(_windows(serving)) == 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # the outbox is larger already
        try:
            rt.infer(tiny_data[0])
            until(lambda: rt.problems)
            problem = rt.problems[0]
            rt.infer(tiny_data[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert problem.code in ("EQ501", "EQ522")
        until(lambda: len(_windows(serving)) == 2)
    assert [window["inferences"] for window in _windows(serving)] == [1, 2]


def test_a_recorder_that_is_behind_counts_unrecorded_calls(
    serving: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    fold = CallMetrics.fold
    monkeypatch.setattr(CallMetrics, "fold", lambda *given: (go.wait(30), fold(*given))[1])
    with Runtime("tiny", str(serving.home)) as rt:
        for _ in range(256 * 12):
            rt.infer(tiny_data[0])
        go.set()
    total = [(window["inferences"], window["unrecorded"]) for window in _windows(serving)]
    assert sum(inferences + unrecorded for inferences, unrecorded in total) == 256 * 12
    assert 0 < sum(unrecorded for _, unrecorded in total) < 256 * 12
    assert _counters(serving)["calls"] == 256 * 12


class TestShadow:
    def test_the_shadow_gets_the_models_inputs(
        self, both: Any, tiny_models: Path, tiny_data: Any, kit: Any
    ) -> None:
        # The int8 release serves, the float one is its shadow.
        name = both.current("tiny")[:12]
        with Runtime(
            "tiny", str(both.home), split={"previous": 1}, shadow="current", shadow_fraction=1
        ) as rt:
            (shadows,) = alive(Shadows)
            for sample in tiny_data[:16]:
                rt.infer(sample)
                until(shadows.drained)
        (window,) = _windows(both)
        figures = window["shadow"][name]
        expected = kit.run_here(tiny_models / "float.tflite", tiny_data[:16])[1].astype(np.float64)
        raw = kit.run_here(tiny_models / "int8.tflite", tiny_data[:16])[1]
        real = (raw.astype(np.float64) + 128) / 256
        assert figures["samples"] == 16
        assert figures["agree"] == int((expected.argmax(axis=1) == real.argmax(axis=1)).sum())
        assert figures["signal"] == pytest.approx(np.square(expected).sum(), rel=1e-5)
        assert figures["noise"] == pytest.approx(np.square(expected - real).sum(), rel=1e-4)
        assert figures["noise"] > 0

    @pytest.mark.slow
    def test_a_model_file_of_the_bundle_can_be_the_shadow(
        self, ready: Any, int8_bundle: Any, float_bundle: Any, kit: Any, tiny_data: Any
    ) -> None:
        files = {**int8_bundle.files, "float.tflite": float_bundle.files["model.tflite"]}
        bundle = kit.bundle_from(files, samples=20, name="tiny")
        bundle.send(ready)
        assert ready.call("activate", **bundle.request()).result["changed"]
        with Runtime("tiny", str(ready.home), shadow="float.tflite", shadow_fraction=1) as rt:
            rt.infer(tiny_data[0])
            integers = np.zeros((6, 6, 2), np.int8)
            rt.infer(integers)  # the model's own integers reach the shadow as real values
        (window,) = _windows(ready)
        assert window["shadow"]["float.tflite"]["samples"] == 2

    def test_the_shadow_gets_its_fraction_of_the_calls(self, both: Any, tiny_data: Any) -> None:
        with Runtime("tiny", str(both.home), shadow="previous", shadow_fraction=0.2) as rt:
            for _ in range(2000):
                rt.infer(tiny_data[0])
        (counts,) = _windows(both)[0]["shadow"].values()
        seen = counts.get("samples", 0) + counts.get("dropped", 0)
        assert 300 < seen < 500  # 400 are expected, 18 is one sigma

    def test_a_shadow_that_hangs_never_blocks_a_caller(
        self, both: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Runtime("tiny", str(both.home), shadow="previous", shadow_fraction=1) as rt:
            let_go = threading.Event()
            invoke = model.invoke  # of the shadow alone: calls of the release use their slots
            monkeypatch.setattr(model, "invoke", lambda *given: (let_go.wait(30), invoke(*given))[1])
            for _ in range(100):
                rt.infer(tiny_data[0])
            let_go.set()
        (counts,) = _windows(both)[0]["shadow"].values()
        assert counts["samples"] + counts["dropped"] == 100
        assert counts["dropped"] >= 80

    @pytest.mark.parametrize("which", ["absent.tflite", "../x.tflite", "ffffffff", "nobody"])
    def test_a_missing_shadow_is_reported_and_the_model_serves(
        self, both: Any, tiny_data: Any, which: str
    ) -> None:
        with Runtime("tiny", str(both.home), shadow=which) as rt:
            assert rt.infer(tiny_data[0]).shape == (3,)
            assert [problem.code for problem in rt.problems] == ["EQ547"]
        assert "shadow" not in _windows(both)[0]

    @pytest.mark.slow
    def test_a_shadow_with_other_inputs_is_reported(self, ready: Any, int8_bundle: Any, kit: Any) -> None:
        from edgeq_agent.inference.tiny_model import TINY_MODEL

        bundle = kit.bundle_from({**int8_bundle.files, "other.tflite": TINY_MODEL}, samples=20, name="tiny")
        bundle.send(ready)
        assert ready.call("activate", **bundle.request()).result["changed"]
        with Runtime("tiny", str(ready.home), shadow="other.tflite") as rt:
            (problem,) = rt.problems
            assert "inputs [[6, 6, 2]], 3 outputs" in problem.text


def test_a_window_counts_many_latencies_as_it_counts_each() -> None:
    values = np.random.default_rng(1).lognormal(10, 2, 5000).astype(np.int64)
    each, many = (WindowBuilder(Reference(None, 3)) for _ in range(2))
    for value in values.tolist():
        each.add_latency(value)
    for part in (values[:2000], values[2000:], values[:0]):
        many.add_latencies(part)
    assert many.build().latency == each.build().latency
    assert many.inferences == each.inferences == 5000
