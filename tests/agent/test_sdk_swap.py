"""Hot swap under many threads: no call is dropped or mixed; a release that fails its check is refused."""

from __future__ import annotations

import gc
import io
import os
import threading
import time
import weakref
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent import Runtime, errors
from edgeq_agent.releases import manifest, release_store
from edgeq_agent.sdk.engine import Engine
from edgeq_agent.sdk.errors import ReleaseRefused
from edgeq_agent.sdk.slot import Slot
from edgeq_agent.storage import files, journal
from edgeq_agent.storage.home import Home
from tests.agent.held_calls import HeldCalls, alive
from tests.eventually import until

pytestmark = pytest.mark.convert

THREADS = 16
SWAPS = 12


def _has_release(runtime: Runtime, release: str) -> bool:
    return runtime.release == release


def _expected(both: Any, tiny_models: Path, samples: Any, kit: Any) -> dict[str, Any]:
    """Return each release's answers to the samples; float serves, int8 did before."""
    home = Home(str(both.home))
    now = release_store.current(home, "tiny")
    (before,) = set(release_store.of_model(home, "tiny")) - {now}
    integers = kit.run_here(tiny_models / "int8.tflite", samples)[1]
    return {
        str(now): kit.run_here(tiny_models / "float.tflite", samples)[1],
        before: (integers.astype(np.float32) + 128) / 256,
    }


@pytest.mark.slow
def test_sixteen_threads_while_releases_change(
    both: Any, tiny_models: Path, tiny_data: Any, kit: Any
) -> None:
    home = Home(str(both.home))
    expected = _expected(both, tiny_models, tiny_data, kit)
    answers: list[Counter[str]] = [Counter() for _ in range(THREADS)]
    wrong: list[object] = []
    ended = threading.Event()

    def call(number: int, rt: Runtime) -> None:
        random = np.random.default_rng(number)
        while not ended.is_set():
            row = int(random.integers(len(tiny_data)))
            try:
                answer = rt.run(tiny_data[row])
            except Exception as error:  # noqa: BLE001 - a dropped call of any kind is what this test looks for
                wrong.append(error)
                return
            (output,) = answer.outputs.values()
            answers[number][answer.release] += 1
            if not np.allclose(output, expected[answer.release][row], rtol=1e-4, atol=1e-6):
                wrong.append((answer, row))

    with Runtime("tiny", str(both.home), pool=3, poll_s=0.02) as rt:
        threads = [threading.Thread(target=call, args=(number, rt)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        order = list(expected) * SWAPS
        for release in order[1:SWAPS]:
            release_store.point(home, "tiny", release)
            until(partial(_has_release, rt, release))
            time.sleep(0.05)
        ended.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert wrong == []
    calls = sum(answers, Counter[str]())
    assert set(calls) == set(expected)
    assert all(sum(each.values()) > 0 for each in answers)
    # The counters and the windows have every call, too.
    counted = files.read_json(str(both.home / "models" / "tiny" / "counters.json"))["releases"]
    assert {release: body["calls"] for release, body in counted.items()} == dict(calls)
    windows = [event["window"] for event in both.call("telemetry", limit=1000).of("window")]
    stored: Counter[str] = Counter()
    for window in windows:
        stored[window["release"]] += window["inferences"] + window["unrecorded"]
        assert window["errors"] == {}
    assert stored == calls


def test_answers_of_the_two_releases_differ(both: Any, tiny_models: Path, tiny_data: Any, kit: Any) -> None:
    # Otherwise the test above could not detect a mixed call.
    one, other = _expected(both, tiny_models, tiny_data, kit).values()
    assert np.abs(one - other).max(axis=1).min() > 1e-4


@pytest.mark.slow
def test_a_call_that_runs_stays_on_its_release(
    both: Any, int8_bundle: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
        before = rt.release
        (gone,) = (weakref.ref(engine) for engine in alive(Engine))
        calls = HeldCalls(monkeypatch)
        calls.start(rt.run, tiny_data[0])
        until(lambda: calls.begun == 1)
        release_store.point(Home(str(both.home)), "tiny", int8_bundle.release)
        until(lambda: rt.release == int8_bundle.release)
        assert gone() is not None
        assert [answer.release for answer in calls.finish()] == [before]
        until(lambda: gc.collect() is not None and gone() is None)


@pytest.mark.slow
def test_the_pool_is_bounded_and_grows_only_when_calls_wait(
    both: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime("tiny", str(both.home), pool=2, poll_s=0.02, telemetry=False) as rt:
        for sample in tiny_data[:50]:
            rt.infer(sample)
        assert len(alive(Slot)) == 1
        calls = HeldCalls(monkeypatch)
        for _ in range(3):
            calls.start(rt.infer, tiny_data[0])
        until(lambda: calls.begun == 2)
        time.sleep(0.1)
        assert (calls.begun, len(alive(Slot))) == (2, 2)
        assert [answer.shape for answer in calls.finish()] == [(3,)] * 3


def _put(device: Any, bundle: Any) -> None:
    """Put a release onto the device without the health check that would refuse it."""
    bundle.send(device)
    home = Home(str(device.home))
    release_store.build(home, manifest.parse(bundle.manifest, bundle.release))


def _broken(kit: Any, float_bundle: Any, file: str, data: bytes) -> Any:
    return kit.bundle_from({**float_bundle.files, file: data}, samples=20, name="tiny")


def _faults(kit: Any, float_bundle: Any) -> dict[str, Any]:
    with np.load(io.BytesIO(float_bundle.files["golden.npz"])) as golden:
        other = kit.npz(input_0=golden["input_0"], output_0=golden["output_0"][::-1])
    return {
        "golden": _broken(kit, float_bundle, "golden.npz", other),
        "model": _broken(kit, float_bundle, "model.tflite", b"TFL3" * 100),
        "reference": _broken(kit, float_bundle, "reference.json", b"{}"),
    }


@pytest.mark.first_is_quick
@pytest.mark.parametrize("fault", ["golden", "model", "reference", "absent"])
def test_a_release_that_fails_its_check_is_refused(
    both: Any, float_bundle: Any, tiny_data: Any, kit: Any, fault: str
) -> None:
    home = Home(str(both.home))
    good = release_store.current(home, "tiny")
    bad = "0" * 64
    if fault != "absent":
        bundle = _faults(kit, float_bundle)[fault]
        _put(both, bundle)
        bad = bundle.release
    with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
        before = rt.infer(tiny_data[0])
        release_store.point(home, "tiny", bad)
        until(lambda: rt.problems)
        assert rt.release == good
        np.testing.assert_array_equal(rt.infer(tiny_data[0]), before)
        (problem,) = rt.problems
        assert (problem.release, problem.code) == (bad, "EQ544")
        until(lambda: [e for e in journal.tail(home, 50) if e["event"] == "refused" and e["release"] == bad])

        def refused_counts() -> dict[str, Any]:
            body: dict[str, Any] = files.read_json(str(both.home / "models" / "tiny" / "counters.json"))
            return body if body["release"] == bad else {}

        until(lambda: os.path.exists(both.home / "models" / "tiny" / "counters.json") and refused_counts())
        assert (refused_counts()["errors"], refused_counts()["calls"]) == (1, 0)
        assert "EQ544" in refused_counts()["refused"][bad]
        # Going back needs no restart, and the good release was never unloaded.
        release_store.point(home, "tiny", good)
        time.sleep(0.1)
        assert rt.release == good


def test_the_previous_release_serves_when_the_current_one_does_not_load(
    both: Any, float_bundle: Any, kit: Any, tiny_data: Any, int8_bundle: Any
) -> None:
    bad = _faults(kit, float_bundle)["golden"]
    _put(both, bad)
    release_store.point(Home(str(both.home)), "tiny", bad.release)
    with Runtime("tiny", str(both.home)) as rt:
        assert rt.release == int8_bundle.release  # the one that state.json's history names
        assert [problem.release for problem in rt.problems] == [bad.release]
        assert rt.infer(tiny_data[0]).shape == (3,)


def test_a_device_on_which_no_release_loads(both: Any, float_bundle: Any, kit: Any) -> None:
    bad = _faults(kit, float_bundle)["model"]
    _put(both, bad)
    home = Home(str(both.home))
    for release in set(release_store.of_model(home, "tiny")) - {bad.release}:
        (both.home / "releases" / release / "model.tflite").unlink()
    release_store.point(home, "tiny", bad.release)
    with pytest.raises(ReleaseRefused) as caught:
        Runtime("tiny", str(both.home))
    assert caught.value.subject == f"tiny {bad.release[:12]}"
    assert isinstance(caught.value, errors.AgentError)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeq-")]


def test_a_loaded_release_serves_after_its_removal(both: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
        served = rt.release
        release_store.point(Home(str(both.home)), "tiny", None)
        until(lambda: rt.problems)
        assert rt.problems[0].code == "EQ510"
        assert rt.release == served
        assert rt.infer(tiny_data[0]).shape == (3,)


def test_no_thread_is_left_after_close(both: Any) -> None:
    with Runtime("tiny", str(both.home), shadow="previous"):
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("edgeq-")]) == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeq-")]


def test_an_error_that_is_kept_keeps_no_release_in_memory(
    both: Any, int8_bundle: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[errors.AgentError] = []
    with Runtime("tiny", str(both.home), pool=1, poll_s=0.02, strict=True) as rt:
        (gone,) = (weakref.ref(engine) for engine in alive(Engine))
        calls = HeldCalls(monkeypatch)
        calls.start(rt.infer, tiny_data[0])
        until(lambda: calls.begun == 1)
        for call in (rt.infer, rt.run):
            try:
                call(tiny_data[0], deadline_s=0.01)  # no interpreter is free
            except errors.AgentError as error:
                kept.append(error)
        calls.finish()
        for call in (rt.infer, rt.run):
            try:
                call(tiny_data)  # another shape
            except errors.AgentError as error:
                kept.append(error)
        assert [error.code for error in kept] == ["EQ542", "EQ542", "EQ540", "EQ540"]
        release_store.point(Home(str(both.home)), "tiny", int8_bundle.release)
        until(lambda: rt.release == int8_bundle.release)
        until(lambda: gone() is None)
