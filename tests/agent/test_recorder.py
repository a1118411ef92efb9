"""The recorder of a runtime: no failure ends it, a killed process loses little, readiness shows faults."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import Runtime
from edgeq_agent.http.open_inference import Service
from edgeq_agent.sdk.call_metrics import CallMetrics
from edgeq_agent.sdk.recorder import Recorder
from edgeq_agent.storage import clock, disk, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import open_windows, outbox
from edgeq_agent.telemetry.window import parse
from tests.eventually import until

pytestmark = pytest.mark.convert


def _windows(on: Any) -> list[dict[str, Any]]:
    windows = [event["window"] for event in on.call("telemetry", limit=1000).of("window")]
    for window in windows:
        parse(window)
    return windows


def _sum(windows: list[dict[str, Any]]) -> int:
    return sum(window["inferences"] + window.get("unrecorded", 0) for window in windows)


@pytest.mark.parametrize(
    "step",
    [
        (CallMetrics, "fold"),
        (CallMetrics, "window"),
        (CallMetrics, "open_window"),
        (CallMetrics, "due"),
        (CallMetrics, "totals"),
        (Recorder, "store_counters"),
        (Recorder, "close_late"),
        (open_windows, "write"),
    ],
    ids=lambda step: step[1],
)
@pytest.mark.parametrize("error", [TypeError("of a bug"), MemoryError(), KeyError("x"), SystemExit(3)])
@pytest.mark.first_is_quick
def test_a_recorder_survives_any_failure(
    serving: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch, step: Any, error: BaseException
) -> None:
    owner, name = step
    working = getattr(owner, name)
    failures: list[int] = []

    def fail(*given: Any) -> Any:
        if not failures:
            failures.append(1)
            raise error
        return working(*given)

    # Only a window of more than a second is written before it ends.
    with Runtime("tiny", str(serving.home), window_s=30 if name == "write" else 0.5) as rt:
        monkeypatch.setattr(owner, name, fail)
        for _ in range(300):
            rt.infer(tiny_data[0])
        until(lambda: failures)
        until(lambda: not rt.recording_problem)
        for _ in range(10):
            rt.infer(tiny_data[0])
        assert rt.problems
    assert _sum(_windows(serving)) == 310
    recorder = serving.call("status").result["models"]["tiny"]["recorder"]
    assert (recorder["failures"] >= 1, recorder["problem"]) == (True, "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_recorder_whose_thread_has_ended_is_restarted(
    serving: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = Recorder.tick  # the thread's own step, outside of every guard
    ended: list[int] = []

    def end(recorder: Recorder, last: bool = False) -> None:
        if not ended:
            ended.append(1)
            raise SystemExit(3)
        tick(recorder, last)

    monkeypatch.setattr(Recorder, "tick", end)
    with Runtime("tiny", str(serving.home), poll_s=0.2) as rt:
        rt.infer(tiny_data[0])
        until(lambda: ended)
        rt.infer(tiny_data[0])
        until(lambda: any("restarted" in problem.text for problem in rt.problems))
        until(lambda: not rt.recording_problem)
    assert _sum(_windows(serving)) == 2
    assert serving.call("status").result["models"]["tiny"]["recorder"]["restarts"] == 1


@pytest.mark.parametrize("body", ["[]", "7", '{"schema": "edgeq.counters/1", "releases": {"a": 7}}'])
def test_counters_of_another_type_stop_no_recording(serving: Any, tiny_data: Any, body: str) -> None:
    (serving.home / "models" / "tiny" / "counters.json").write_text(body)
    with Runtime("tiny", str(serving.home)) as rt:
        for _ in range(100):
            rt.infer(tiny_data[0])
    assert _sum(_windows(serving)) == 100
    assert json.loads((serving.home / "models" / "tiny" / "counters.json").read_text())["calls"] == 100


def test_readiness_shows_that_nothing_is_recorded(
    serving: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise RuntimeError("of a bug")

    with Runtime("tiny", str(serving.home)) as rt:
        service = Service({"tiny": rt}, {})
        assert service.respond("GET", "/v2/health/ready", {}, b"").status == 200
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "store_counters", fail)
            until(lambda: rt.recording_problem)
            assert "RuntimeError: of a bug" in rt.recording_problem
            assert service.respond("GET", "/v2/health/ready", {}, b"").status == 400
        until(lambda: not rt.recording_problem)
        assert service.respond("GET", "/v2/health/ready", {}, b"").status == 200


KILLED = """
import sys, time, os
import numpy as np
from edgeq_agent import Runtime
from edgeq_agent.sdk.errors import InputMismatch
rt = Runtime("tiny", sys.argv[1])
x = np.load(sys.argv[2])[0]
for _ in range(int(sys.argv[3])):
    rt.infer(x)
for _ in range(2):
    try:
        rt.infer(x[:1])
    except InputMismatch:
        continue
    sys.exit("a wrong shape was accepted")
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("calls", [1, 700])
def test_a_killed_process_loses_at_most_its_last_second(serving: Any, tiny_models: Path, calls: int) -> None:
    command = [sys.executable, "-c", KILLED, str(serving.home), str(tiny_models / "data.npy"), str(calls)]
    with subprocess.Popen(command, env=serving.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        file = serving.home / "open-windows"
        until(lambda: any(f'"unrecorded":{calls}' in each.read_text() for each in file.glob("*.json")))
        assert _windows(serving) == [], "the process lives: its window is open"
        process.send_signal(signal.SIGKILL)
        process.wait()
    (window,) = _windows(serving)
    assert (window["unrecorded"], window["interrupted"], window["seq"]) == (calls, 1, 1)
    assert window["errors"] == {"input_mismatch": 2}
    assert window["latency"]["count"] == 0
    assert list(file.iterdir()) == []
    assert _windows(serving) == [window]


KILLED_AT_ONCE = """
import os, signal, sys
import numpy as np
from edgeq_agent import Runtime
from edgeq_agent.sdk.recorder import Recorder
Recorder.tick = lambda recorder, last=False: None  # killed before the first one
rt = Runtime("tiny", sys.argv[1])
for _ in range(int(sys.argv[3])):
    rt.infer(np.load(sys.argv[2])[0])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 0])
def test_a_window_of_which_no_count_is_left_is_seen_as_lost(
    serving: Any, tiny_models: Path, calls: int
) -> None:
    data = str(tiny_models / "data.npy")
    for _ in range(2):
        argv = [sys.executable, "-c", KILLED_AT_ONCE, str(serving.home), data, str(calls)]
        subprocess.run(argv, env=serving.environment, check=False)
    windows = _windows(serving)
    assert [(each["seq"], each["lost"], each["interrupted"]) for each in windows] == [(1, 1, 1), (2, 1, 1)]
    assert _sum(windows) == 0
    assert _windows(serving) == windows


@pytest.mark.slow
def test_each_window_that_began_is_stored_lost_or_open(
    serving: Any, tiny_data: Any, tiny_models: Path
) -> None:
    with Runtime("tiny", str(serving.home), window_s=0.3) as rt:
        for _ in range(3):
            rt.infer(tiny_data[0])
            until(lambda: not rt.recording_problem)
            time.sleep(1.2)
    assert [each["seq"] for each in _windows(serving)] == [1, 2, 3]
    with Runtime("tiny", str(serving.home)):
        time.sleep(1.5)  # nothing happens: closing leaves no window
    with outbox.opened(Home(str(serving.home))) as box:
        assert box.begun() == []
    assert len(_windows(serving)) == 3


@pytest.mark.parametrize("how", ["lost", "torn", "mixed 1", "mixed 2"])
@pytest.mark.first_is_quick
def test_a_power_cut_loses_at_most_the_last_second(
    serving: Any, tiny_data: Any, tmp_path: Path, injection: Any, how: str
) -> None:
    cache = injection.page_cache.PageCache(serving.home)
    with disk.use(injection.machine.FaultyDisk(cache, None)), Runtime("tiny", str(serving.home)) as rt:
        for calls in (5, 12):
            for _ in range(calls):
                rt.infer(tiny_data[0])
        chance = random.Random(how)  # noqa: S311 - a seed that a failure names
        until(lambda: '"unrecorded":17' in str(cache.after_cut("lost", chance)))
        left = cache.after_cut(how, chance)
        # SQLite syncs its own file.
        left["outbox.db"] = Path(serving.home, "outbox.db").read_bytes()
    after = Home(str(tmp_path / "after"))
    injection.page_cache.write_tree(Path(after.root), left)
    with clock.use(injection.machine.FakeClock()), outbox.opened(after) as box:
        assert open_windows.recover(after, box) == 1
        _, (window,) = box.take(10)
    assert (window["unrecorded"], window["interrupted"], window.get("lost", 0)) == (17, 1, 0)


def test_a_window_that_was_stored_is_not_counted_again(serving: Any, tiny_data: Any) -> None:
    home = Home(str(serving.home))
    with Runtime("tiny", str(serving.home)) as rt:
        rt.infer(tiny_data[0])
        (path,) = until(lambda: list((serving.home / "open-windows").glob("[0-9]*.json")))
        kept = path.read_bytes()
    assert not path.exists(), "a runtime that is closed leaves no open window"
    # As if the process had been killed after it stored the window and before it removed the file.
    path.with_name("999999999.1.0-1.json").write_bytes(kept)
    with outbox.opened(home) as box:
        assert open_windows.recover(home, box) == 0
        assert box.pending() == 1


def test_a_file_that_is_being_replaced_is_not_read(serving: Any, tiny_data: Any) -> None:
    home = Home(str(serving.home))
    with Runtime("tiny", str(serving.home)) as rt:
        rt.infer(tiny_data[0])
        (path,) = until(lambda: list((serving.home / "open-windows").glob("[0-9]*.json")))
        unfinished = Path(scratch.beside(str(path)))
        unfinished.write_bytes(path.read_bytes())
        with outbox.opened(home) as box:
            assert open_windows.recover(home, box) == 0
            assert box.pending() == 0
        assert unfinished.exists(), "its process runs"
        # A process that was killed before it put the new file in place.
        dead = path.with_name(f".999999999.1.0-{path.name}")
        unfinished.rename(dead)
        with outbox.opened(home) as box:
            assert open_windows.recover(home, box) == 0
        assert not dead.exists()
    assert [each["inferences"] for each in _windows(serving)] == [1]


def test_a_damaged_file_of_open_windows_is_renamed(serving: Any) -> None:
    folder = serving.home / "open-windows"
    folder.mkdir()
    for number, text in enumerate(("{", "[]", '{"schema":"edgeq.open-windows/1","windows":[7]}')):
        (folder / f"99999999{number}.1.0-1.json").write_text(text)
    assert len(serving.call("telemetry").result["damaged"]) == 3
    assert "damaged" not in serving.call("telemetry").result
