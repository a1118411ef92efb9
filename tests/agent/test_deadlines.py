"""Kills and hangs: the device always has a working release, the wait is bounded, a retry converges."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import until

pytestmark = pytest.mark.convert


def _children(pid: int) -> list[int]:
    """Return the model's processes of an agent, each only once it runs its own program."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [
            child for child in children if b"inference.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    except OSError:
        return []


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def slow_bundle(tiny_models: Path, tiny_data: Any, int8_bundle: Any, kit: Any) -> Any:
    """Return the int8 model with so many golden samples that the check takes seconds."""
    import io

    import numpy as np

    with np.load(io.BytesIO(int8_bundle.files["golden.npz"])) as golden:
        arrays = {name: np.concatenate([golden[name]] * 6_000) for name in golden.files}
    files = {**int8_bundle.files, "golden.npz": kit.npz(**arrays)}
    return kit.bundle_from(files, samples=120_000, name="tiny")


@pytest.mark.slow
def test_kill_in_the_middle_of_an_activation(
    serving: Any, int8_bundle: Any, float_bundle: Any, slow_bundle: Any, tiny_data: Any, kit: Any
) -> None:
    slow_bundle.send(serving)
    with serving.start("activate") as process:
        process.stdin.write(json.dumps(slow_bundle.request()).encode() + b"\n")
        process.stdin.close()
        child = until(lambda: _children(process.pid))[0]
        state = serving.home / "models" / "tiny" / "state.json"
        until(lambda: json.loads(state.read_text())["state"] == "staged")
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        process.stdin = None
    until(lambda: _gone(child))  # the model's process ends with the agent
    assert serving.current("tiny") == int8_bundle.release
    assert (
        serving.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny").result["release"]
        == int8_bundle.release
    )
    model = serving.call("status").result["models"]["tiny"]
    assert (model["state"], model["reason"]) == ("rolled_back", "interrupted")
    assert model["current"] == int8_bundle.release
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    assert serving.current("tiny") == float_bundle.release


@pytest.mark.slow
def test_kill_at_any_moment(
    serving: Any, int8_bundle: Any, float_bundle: Any, tiny_data: Any, kit: Any
) -> None:
    """Whenever the agent dies, the old or the new release serves, and the next attempt succeeds."""
    bundles = {bundle.release: bundle for bundle in (int8_bundle, float_bundle)}
    float_bundle.send(serving)
    payload = kit.npz(input_0=tiny_data[:1])
    for step in range(7):
        before = serving.current("tiny")
        target = next(bundle for release, bundle in bundles.items() if release != before)
        with serving.start("activate") as process:
            process.stdin.write(json.dumps(target.request()).encode() + b"\n")
            process.stdin.flush()
            time.sleep(0.08 * step)
            process.kill()
            process.communicate()
        assert serving.current("tiny") in bundles
        assert serving.call("infer", payload, model="tiny").result["release"] == serving.current("tiny")
    assert serving.call("activate", **float_bundle.request()).result["release"] == float_bundle.release
    assert serving.call("status").result["models"]["tiny"]["state"] == "committed"
    assert list((serving.home / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("when", ["staged", "verified", "activating", "swapped"])
def test_the_next_call_recovers_from_a_death_in_each_state(
    serving: Any, int8_bundle: Any, float_bundle: Any, when: str
) -> None:
    """The device is put into each state as a power cut would leave it; the next call recovers it."""
    from edgeq_agent.activation import states
    from edgeq_agent.inference.job import HealthReport
    from edgeq_agent.releases import manifest, release_store
    from edgeq_agent.storage import home, lock

    place = home.locate(str(serving.home))
    float_bundle.send(serving)
    with lock.hold(place):
        state = states.load(place, "tiny")
        next_release = manifest.parse(float_bundle.manifest, float_bundle.release)
        runtime = str(state.record.runtime_of(int8_bundle.release))
        state.begin(next_release.release, runtime, (int8_bundle.release,))
        release_store.build(place, next_release)
        if when != "staged":
            state.verified(
                HealthReport(proof="golden", latency_p95_ns=1, memory_peak_bytes=1, kernels="builtin")
            )
        if when in ("activating", "swapped"):
            state.activating()
        if when == "swapped":
            release_store.point(place, "tiny", next_release.release)
    serves = float_bundle.release if when == "swapped" else int8_bundle.release
    assert serving.current("tiny") == serves
    assert serving.call("bench", model="tiny", runs=1, min_seconds=0.01).result["release"] == serves
    model = serving.call("status").result["models"]["tiny"]
    assert model["current"] == serves
    assert model["state"] == ("committed" if when == "swapped" else "rolled_back")
    retried = serving.call("activate", **float_bundle.request()).result
    assert retried["changed"] is (when != "swapped")
    assert serving.current("tiny") == float_bundle.release
    assert serving.call("rollback", model="tiny").result["release"] == int8_bundle.release


@pytest.mark.slow
def test_status_during_an_activation_leaves_it_alone(
    serving: Any, int8_bundle: Any, slow_bundle: Any
) -> None:
    slow_bundle.send(serving)
    with serving.start("activate") as process:
        process.stdin.write(json.dumps(slow_bundle.request()).encode() + b"\n")
        process.stdin.flush()
        until(lambda: _children(process.pid))
        model = serving.call("status").result["models"]["tiny"]
        assert (model["state"], model["current"]) == ("staged", int8_bundle.release)
        out, _ = process.communicate()
    assert json.loads(out.splitlines()[-1])["result"]["states"][-1] == "committed"


@pytest.mark.slow
def test_an_activation_completes_when_the_caller_disconnects(serving: Any, slow_bundle: Any) -> None:
    slow_bundle.send(serving)
    with serving.start("activate") as process:
        process.stdin.write(json.dumps(slow_bundle.request()).encode() + b"\n")
        process.stdin.flush()
        process.stdout.close()  # as when the connection drops
        process.stdout = None
        process.communicate(timeout=60)
    assert serving.current("tiny") == slow_bundle.release
    assert serving.call("status").result["models"]["tiny"]["state"] == "committed"


def test_a_stopped_model_is_killed_at_the_deadline(serving: Any, slow_bundle: Any, int8_bundle: Any) -> None:
    slow_bundle.send(serving)
    began = time.monotonic()
    with serving.start("activate") as process:
        process.stdin.write(json.dumps(slow_bundle.request(timeout_s=2)).encode() + b"\n")
        process.stdin.flush()
        child = until(lambda: _children(process.pid))[0]
        os.kill(child, signal.SIGSTOP)  # neither reads, computes nor answers from here on
        out, _ = process.communicate(timeout=30)
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "EQ511"
    assert time.monotonic() - began < 10
    assert _gone(child)
    assert serving.current("tiny") == int8_bundle.release


@pytest.mark.slow
def test_a_slow_model_is_killed_at_the_deadline(serving: Any, slow_bundle: Any, int8_bundle: Any) -> None:
    slow_bundle.send(serving)
    error = serving.call("activate", **slow_bundle.request(timeout_s=0.6)).error
    assert error["code"] == "EQ511"
    assert serving.current("tiny") == int8_bundle.release


def _interpreter(serving: Any, script: str) -> None:
    """Put a shell script in the place of the runtime's interpreter."""
    entry = next((serving.home / "runtime").glob("*/runtime.json"))
    path = entry.parent / "fake-python"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    body = json.loads(entry.read_text())
    entry.write_text(json.dumps({**body, "interpreter": "fake-python"}))


@pytest.mark.parametrize(
    "script", ["sleep 1000", "sleep 1000 & exec sleep 1001", "trap '' TERM; while :; do sleep 1; done"]
)
def test_an_interpreter_that_hangs_is_killed_at_the_deadline(
    serving: Any, tiny_data: Any, kit: Any, script: str
) -> None:
    _interpreter(serving, script)
    began = time.monotonic()
    error = serving.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny", timeout_s=0.5).error
    assert error["code"] == "EQ511"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("echo no such module >&2; exit 3", "exit status 3: no such module"),
        ("exit 0", "exit status 0"),
    ],
)
def test_an_interpreter_that_dies_is_reported(
    serving: Any, tiny_data: Any, kit: Any, script: str, problem: str
) -> None:
    _interpreter(serving, script)
    error = serving.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny").error
    assert error["code"] == "EQ504"
    assert problem in error["problem"]


def test_an_interpreter_that_prints_garbage_is_reported(serving: Any, tiny_data: Any, kit: Any) -> None:
    _interpreter(serving, "while :; do echo this is no JSON; done")
    error = serving.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny").error
    assert (error["code"], "not a JSON line" in error["problem"]) == ("EQ504", True)


@pytest.mark.slow
def test_sigterm_ends_the_child_too(serving: Any, slow_bundle: Any, int8_bundle: Any) -> None:
    slow_bundle.send(serving)
    with serving.start("activate") as process:
        process.stdin.write(json.dumps(slow_bundle.request()).encode() + b"\n")
        process.stdin.flush()
        child = until(lambda: _children(process.pid))[0]
        process.terminate()
        process.communicate(timeout=20)
    until(lambda: _gone(child))
    assert serving.current("tiny") == int8_bundle.release
    assert serving.call("status").result["models"]["tiny"]["state"] == "rolled_back"


def test_a_busy_device_refuses_with_a_transient_error(tmp_path: Path) -> None:
    from edgeq_agent import errors
    from edgeq_agent.storage import home, lock

    place = home.locate(str(tmp_path))
    began = time.monotonic()
    with lock.hold(place), pytest.raises(errors.AgentError) as refused, lock.hold(place, wait_s=0.3):
        pass
    assert (refused.value.code, refused.value.transient) == ("EQ508", True)
    assert 0.3 <= time.monotonic() - began < 5
    assert lock.WAIT_S == 10
    with lock.hold(place, wait_s=0):  # free again
        pass
