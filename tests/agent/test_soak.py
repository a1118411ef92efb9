"""Soak time: a release is committed after it, or rolled back on failures, crashes and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeq_agent import errors
from edgeq_agent.activation import counters, soak, state_record, states
from edgeq_agent.activation.counters import ReleaseCounts
from edgeq_agent.activation.state_record import Attempts, SoakPolicy, StateRecord
from edgeq_agent.calls.fields import Fields
from edgeq_agent.storage import clock, home, process_token

NOTHING = {"calls": 0, "errors": 0, "deadline_misses": 0, "crashes": 0}


def moment(seconds: float, boot: str = "a") -> clock.Moment:
    return clock.Moment(boot, int(seconds * 1e9))


@pytest.mark.parametrize(
    ("now", "counts", "what"),
    [
        (moment(10), {}, soak.WAIT),
        (moment(69.9), {"calls": 1000}, soak.WAIT),
        (moment(70), {}, soak.COMMIT),
        (moment(1e9), {}, soak.COMMIT),
        (moment(11, "b"), {}, soak.ROLL_BACK),  # another boot
        (moment(9), {}, soak.ROLL_BACK),  # a boot whose id the system hides
        (moment(20), {"errors": 3}, soak.WAIT),
        (moment(20), {"errors": 4}, soak.ROLL_BACK),
        (moment(20), {"errors": 2, "deadline_misses": 2}, soak.ROLL_BACK),
        (moment(70), {"errors": 4}, soak.ROLL_BACK),  # over the limit at its end
        (moment(20), {"crashes": 2}, soak.WAIT),
        (moment(20), {"crashes": 3}, soak.ROLL_BACK),
    ],
)
def test_a_soak_is_judged_by_its_time_and_its_failures(
    now: clock.Moment, counts: dict[str, int], what: str
) -> None:
    policy = SoakPolicy(soak_ns=60 * 10**9, failure_limit=3)
    decision = soak.decide(policy, moment(10), now, ReleaseCounts(**counts))
    assert decision.action == what
    assert bool(decision.reason) is (what == soak.ROLL_BACK)


@pytest.mark.parametrize(
    ("now", "counts", "left_ns", "words"),
    [
        (moment(10), {}, 60 * 10**9, ""),
        (moment(69), {"errors": 3}, 10**9, ""),
        (clock.Moment("a", 70 * 10**9 - 1), {}, 1, ""),
        (moment(71), {}, 0, ""),
        (moment(11, "b"), {"errors": 4}, 0, "restarted"),
        (moment(11), {"crashes": 3}, 0, "3 crashes"),
        (moment(11), {"errors": 1, "deadline_misses": 2, "crashes": 1}, 0, "4 failures"),
    ],
)
def test_a_decision_gives_the_time_left_and_the_reason(
    now: clock.Moment, counts: dict[str, int], left_ns: int, words: str
) -> None:
    policy = SoakPolicy(soak_ns=60 * 10**9, failure_limit=3)
    decision = soak.decide(policy, moment(10), now, ReleaseCounts(**counts))
    assert decision.left_ns == left_ns
    assert words in decision.reason
    assert bool(decision.reason) is bool(words)


def test_the_status_of_a_soak_is_in_seconds(place: home.Home) -> None:
    class Stopped(clock.Clock):
        """The clock at 25 s of a boot."""

        def boot_id(self) -> str:
            return "a"

        def since_boot_ns(self) -> int:
            return 25 * 10**9

    record = StateRecord(
        "m", state=state_record.SOAKING, entered=moment(10), target="r", soak=SoakPolicy(60 * 10**9, 3)
    )
    with clock.use(Stopped()):
        counters.add(place, "m", "r", calls=5, errors=2)
        status = soak.status(place, record)
        assert status is not None
        assert status.to_json() == {
            "soak_s": 60,
            "left_s": 45,
            "failure_limit": 3,
            "counts": {**NOTHING, "calls": 5, "errors": 2},
        }
        without_policy = replace(record, soak=None, entered=clock.now())
        assert soak.check(place, without_policy) == (soak.COMMIT, 0, "")
        status = soak.status(place, without_policy)
        assert status is not None
        assert (status.left_ns, status.policy.soak_ns) == (0, 0)
        for state in (state_record.COMMITTED, state_record.ROLLING_BACK, state_record.NONE):
            assert soak.status(place, replace(record, state=state)) is None


def test_a_soak_lasts_at_most_a_week(device: Any) -> None:
    week = 7 * 24 * 3600
    request = {"model": "m", "release": "a" * 64, "runtime": "c" * 64, "manifest": {}, "signatures": []}
    error = device.call("activate", **request, soak_s=week + 1).error
    assert (error["code"], error["subject"]) == ("EQ512", "soak_s")
    error = device.call("activate", **request, soak_s=week).error
    assert error["code"] == "EQ530", "the soak time is accepted; this device trusts no key"


@pytest.fixture
def place(tmp_path: Path) -> home.Home:
    home_folder = home.locate(str(tmp_path / "home"))
    home_folder.ensure()
    os.mkdir(home_folder.model("m"))
    return home_folder


def test_counts_of_many_processes_are_added(place: home.Home) -> None:
    script = (
        "import sys; from edgeq_agent.activation import counters; from edgeq_agent.storage import home\n"
        "for _ in range(50): counters.add(home.Home(sys.argv[1]), 'm', 'r', calls=2, errors=1)\n"
    )
    folder = str(Path(counters.__file__).parents[2])
    running = [
        subprocess.Popen([sys.executable, "-c", script, place.root], env={**os.environ, "PYTHONPATH": folder})
        for _ in range(4)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert counters.read(place, "m", "r") == ReleaseCounts(calls=400, errors=200)
    assert counters.read(place, "m", "other") == ReleaseCounts()


def test_a_process_that_dies_without_leaving_is_a_crash(place: home.Home) -> None:
    script = (
        "import os, sys; from edgeq_agent.activation import counters; from edgeq_agent.storage import home\n"
        "place = home.Home(sys.argv[1]); counters.enter(place, 'm', 'r')\n"
        "counters.leave(place, 'm', 'r') if sys.argv[2] == 'peace' else os.kill(os.getpid(), 9)\n"
    )
    folder = str(Path(counters.__file__).parents[2])
    for how in ("peace", "crash", "crash"):
        command = [sys.executable, "-c", script, place.root, how]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": folder}, check=False, timeout=60)
        assert done.returncode == (0 if how == "peace" else -signal.SIGKILL)
    counters.enter(place, "m", "r")  # this process runs on: no crash
    assert counters.read(place, "m", "r") == ReleaseCounts(crashes=2)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"release": "r"}'])
def test_counters_damaged_by_a_power_cut_start_at_zero(place: home.Home, content: bytes) -> None:
    Path(place.model("m"), "counters.json").write_bytes(content)
    assert counters.read(place, "m", "r") == ReleaseCounts()
    counters.add(place, "m", "r", calls=1)
    assert counters.read(place, "m", "r").calls == 1


def test_a_token_identifies_one_process_of_one_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = process_token.token()
    pid, started, boot = mine.split(".")
    assert process_token.alive(mine)
    assert process_token.alive(pid)
    assert not process_token.alive(f"{pid}.{int(started) + 1}.{boot}")  # the number was given again
    assert not process_token.alive(f"{pid}.{started}.00000000")  # before a restart
    assert not process_token.alive("999999999.1." + boot)
    assert not process_token.alive("no-number")


def test_attempts_are_counted_for_each_release() -> None:
    counts = Attempts()
    for _ in range(state_record.ATTEMPT_LIMIT):
        counts.check_limit("m", "bad", None)
        counts = counts.incremented("bad").incremented("good").without("good")
    counts.check_limit("m", "good", None)
    with pytest.raises(errors.AgentError) as refused:
        counts.check_limit("m", "bad", "the device restarted during the soak")
    assert (refused.value.code, refused.value.got) == ("EQ520", f"{state_record.ATTEMPT_LIMIT} attempts")
    assert "restarted" in refused.value.problem
    counts.without("bad").check_limit("m", "bad", None)
    assert Attempts.parse(Fields({"attempts": counts.to_json()})).count("bad") == state_record.ATTEMPT_LIMIT


@pytest.fixture(scope="module")
def trial(
    injection: SimpleNamespace,
    tmp_path_factory: pytest.TempPathFactory,
    prepared_serving: Path,
    float_bundle: Any,
) -> Iterator[Any]:
    """Return a machine and its disk: the int8 release serves and the float release is on the device."""
    with pytest.MonkeyPatch.context() as patch:
        injection.machine.Remembered(patch)
        machine = injection.machine.Machine(
            tmp_path_factory.mktemp("trial") / "disk", injection.page_cache, patch
        )
        tree = {"home": None}
        tree |= {
            f"home/{path}": what for path, what in injection.page_cache.read_tree(prepared_serving).items()
        }
        machine.load(tree)
        for data in float_bundle.files.values():
            injection.scenarios.put(data).act(machine)
        yield machine, injection.page_cache.read_tree(machine.root)


@pytest.fixture
def machine(trial: Any, float_bundle: Any) -> Any:
    """Return the machine with the float release soaking for a minute."""
    device, tree = trial
    device.load(tree)
    answer = device.call("activate", **float_bundle.request(soak_s=60, failure_limit=2))
    assert answer["result"]["state"] == "soaking"
    return device


def model_of(machine: Any) -> dict[str, Any]:
    model: dict[str, Any] = machine.call("status")["result"]["models"]["tiny"]
    return model


@pytest.mark.convert
def test_a_soak_without_failures_is_committed(machine: Any, int8_bundle: Any, float_bundle: Any) -> None:
    model = model_of(machine)
    assert (model["state"], model["current"]) == ("soaking", float_bundle.release)
    assert (model["previous"], model["soak"]["left_s"]) == (int8_bundle.release, 60)
    machine.clock.seconds += 59
    answer = machine.call("soak", model="tiny")["result"]
    assert (answer["state"], answer["changed"], answer["soak"]["left_s"]) == ("soaking", False, 1)
    machine.clock.seconds += 1
    answer = machine.call("soak", model="tiny")["result"]
    assert (answer["state"], answer["changed"], answer["soak"]) == ("committed", True, None)
    assert machine.call("soak", model="tiny")["result"]["changed"] is False
    assert model_of(machine)["previous"] == int8_bundle.release


@pytest.mark.convert
@pytest.mark.parametrize("wall", [0.0, 4_102_444_800.0, -1.0], ids=["1970", "2100", "before 1970"])
def test_a_jump_of_the_wall_clock_does_not_matter(
    trial: Any, int8_bundle: Any, float_bundle: Any, wall: float
) -> None:
    machine, tree = trial
    machine.load(tree)
    machine.clock.wall = wall
    assert machine.call("activate", **float_bundle.request(soak_s=60))["result"]["state"] == "soaking"
    machine.clock.wall = 1_700_000_000.0  # set by the network
    assert machine.call("soak", model="tiny")["result"]["state"] == "soaking"
    machine.clock.wall -= 500_000_000.0  # and stepped back
    machine.clock.seconds += 30
    assert machine.call("soak", model="tiny")["result"]["soak"]["left_s"] == 30
    machine.clock.seconds += 30
    assert machine.call("soak", model="tiny")["result"]["state"] == "committed"
    answer = machine.call("rollback", model="tiny")["result"]
    assert answer["release"] == int8_bundle.release


@pytest.mark.convert
@pytest.mark.parametrize("verb", ["probe", "status", "telemetry", "missing", "soak", "recover"])
def test_after_a_restart_any_verb_rolls_back(
    machine: Any, int8_bundle: Any, injection: SimpleNamespace, verb: str
) -> None:
    machine.restart(injection.page_cache.read_tree(machine.root))
    requests: dict[str, dict[str, Any]] = {"missing": {"blobs": {}}, "soak": {"model": "tiny"}}
    request = requests.get(verb, {})
    assert machine.call(verb, **request)["event"] == "result"
    assert injection.scenarios.current(machine) == int8_bundle.release
    model = model_of(machine)
    assert (model["state"], model["reason"]) == ("rolled_back", "the device restarted during the soak")


@pytest.mark.convert
@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"calls": 9, "errors": 3}, "3 failures during the soak, at most 2 are allowed: 3 errors"),
        ({"deadline_misses": 3}, "3 deadline misses"),
        ({"crashes": 3}, "a crash loop during the soak: 3 crashes"),
    ],
)
def test_failures_over_the_limit_roll_back(
    machine: Any,
    int8_bundle: Any,
    float_bundle: Any,
    injection: SimpleNamespace,
    counts: dict[str, int],
    reason: str,
) -> None:
    injection.scenarios.fail(float_bundle.release, **counts).act(machine)
    answer = machine.call("soak", model="tiny")["result"]
    assert (answer["state"], answer["release"]) == ("rolled_back", int8_bundle.release)
    assert reason in answer["reason"]
    # The same again is a new trial with counters of its own.
    assert machine.call("activate", **float_bundle.request(soak_s=60))["result"]["state"] == "soaking"
    assert machine.call("soak", model="tiny")["result"]["soak"]["counts"] == NOTHING


@pytest.mark.convert
def test_a_rollback_ends_a_soak(machine: Any, int8_bundle: Any, float_bundle: Any) -> None:
    answer = machine.call("rollback", **{"model": "tiny", "from": float_bundle.release})["result"]
    assert (answer["release"], answer["previous"]) == (int8_bundle.release, float_bundle.release)
    assert answer["states"] == ["rolling_back", "rolled_back"]
    again = machine.call("rollback", **{"model": "tiny", "from": float_bundle.release})["result"]
    assert again["changed"] is False


@pytest.mark.convert
def test_activating_the_same_release_again_does_not_restart_the_soak(machine: Any, float_bundle: Any) -> None:
    machine.clock.seconds += 10
    answer = machine.call("activate", **float_bundle.request(soak_s=60))["result"]
    assert (answer["changed"], answer["state"], answer["soak"]["left_s"]) == (False, "soaking", 50)


@pytest.mark.convert
def test_a_release_activated_during_a_soak_never_rolls_back_to_the_soaking_one(
    machine: Any, int8_bundle: Any, float_bundle: Any, kit: Any, injection: SimpleNamespace
) -> None:
    files = {**int8_bundle.files, "reference.json": float_bundle.files["reference.json"] + b" "}
    third = kit.bundle_from(files, samples=20, name="tiny")
    for data in third.files.values():
        injection.scenarios.put(data).act(machine)
    answer = machine.call("activate", **third.request())["result"]
    assert (answer["release"], answer["previous"]) == (third.release, int8_bundle.release)
    assert machine.call("rollback", model="tiny")["result"]["release"] == int8_bundle.release


def _spoil(machine: Any, bundle: Any) -> None:
    """Damage a release's model: its health check fails from now on."""
    sha = bundle.manifest["files"]["model.tflite"]["sha256"]
    (machine.home / "blobs" / "sha256" / sha).write_bytes(b"no model")
    machine.attach()


@pytest.mark.convert
@pytest.mark.parametrize("both", [False, True])
def test_a_failed_rollback_ends_in_the_safe_state(
    machine: Any, int8_bundle: Any, float_bundle: Any, injection: SimpleNamespace, both: bool
) -> None:
    """The old release is not healthy: the new one goes on if it can, else the old one is put back."""
    _spoil(machine, int8_bundle)
    if both:
        _spoil(machine, float_bundle)
    injection.scenarios.fail(float_bundle.release, crashes=5).act(machine)
    answer = machine.call("soak", model="tiny")["result"]
    serves = int8_bundle if both else float_bundle
    assert (answer["state"], answer["release"]) == ("safe", serves.release)
    assert "a crash loop" in answer["reason"]
    assert f"{serves.release[:12]} serves" in answer["reason"]
    # It stops there: nothing moves on any later call, nor after a restart.
    before = (machine.home / "models/tiny/state.json").read_bytes()
    machine.restart(injection.page_cache.read_tree(machine.root))
    for verb in ("probe", "recover", "status"):
        assert machine.call(verb)["event"] == "result"
    assert (machine.home / "models/tiny/state.json").read_bytes() == before
    assert injection.scenarios.current(machine) == serves.release
    for data in float_bundle.files.values():
        injection.scenarios.put(data).act(machine)
    # What is healthy ends it.
    answer = machine.call("activate", **float_bundle.request())
    assert answer["result"]["state"] == ("committed" if both else "safe")


@pytest.mark.convert
def test_a_failed_rollback_request_names_the_release_that_serves(
    machine: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    _spoil(machine, int8_bundle)
    error = machine.call("rollback", model="tiny")["error"]
    assert error["code"] == "EQ521"
    assert f"{float_bundle.release[:12]} serves" in error["problem"]


@pytest.mark.convert
def test_a_rollback_that_kills_the_device_is_tried_three_times(
    machine: Any, int8_bundle: Any, injection: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the previous release cuts the power: after three tries it serves without a check."""
    from edgeq_agent.activation import health, recovery

    looks = []

    def deadly(*_: Any) -> Any:
        looks.append(1)
        raise injection.machine.PowerCut

    monkeypatch.setattr(health, "check", deadly)
    for _ in range(recovery.TRIES):
        machine.restart(injection.page_cache.read_tree(machine.root))
        with pytest.raises(injection.machine.PowerCut):
            machine.call("recover")
    machine.restart(injection.page_cache.read_tree(machine.root))
    answer = machine.call("recover")["result"]["models"]["tiny"]
    assert (answer["state"], answer["release"]) == ("safe", int8_bundle.release)
    assert len(looks) == recovery.TRIES


@pytest.mark.convert
def test_a_release_that_restarts_the_device_is_refused_after_ten_attempts(
    trial: Any, float_bundle: Any, int8_bundle: Any, injection: SimpleNamespace
) -> None:
    machine, tree = trial
    machine.load(tree)
    for _ in range(state_record.ATTEMPT_LIMIT):
        assert machine.call("activate", **float_bundle.request(soak_s=60))["result"]["state"] == "soaking"
        machine.restart(injection.page_cache.read_tree(machine.root))
    error = machine.call("activate", **float_bundle.request(soak_s=60))["error"]
    assert error["code"] == "EQ520"
    assert "restarted" in error["problem"]
    assert injection.scenarios.current(machine) == int8_bundle.release
    answer = machine.call("activate", **float_bundle.request(soak_s=60, retry=True))["result"]
    assert answer["state"] == "soaking"


@pytest.mark.slow
@pytest.mark.convert
def test_a_failed_first_release_leaves_no_release(
    ready: Any, int8_bundle: Any, tiny_data: Any, kit: Any
) -> None:
    """With the real agent: infer counts its failures; no release served before, so none serves after."""
    int8_bundle.send(ready)
    asked = int8_bundle.request(soak_s=3600, failure_limit=0)
    assert ready.call("activate", **asked).result["state"] == "soaking"
    assert ready.call("infer", kit.npz(input_0=tiny_data[:7]), model="tiny").result["samples"] == 7
    counts = ready.call("soak", model="tiny").result["soak"]["counts"]
    assert counts == {**NOTHING, "calls": 7}
    place = home.Home(str(ready.home))
    counters.add(place, "tiny", int8_bundle.release, errors=1)
    answer = ready.call("recover").result["models"]["tiny"]
    assert (answer["state"], answer["release"]) == ("rolled_back", None)
    assert states.load(place, "tiny").state == state_record.ROLLED_BACK
    assert json.loads((ready.home / "models/tiny/state.json").read_text())["attempts"][0]["count"] == 1


@pytest.mark.slow
@pytest.mark.convert
@pytest.mark.parametrize("step", ["staged", "verified", "activating", "soaking", "committed"])
def test_kill_9_in_each_state(
    serving: Any, int8_bundle: Any, float_bundle: Any, tiny_data: Any, kit: Any, step: str
) -> None:
    """The real agent is killed when it reports a state; the next call recovers the device."""
    float_bundle.send(serving)
    extra = {"soak_s": 3600} if step == "soaking" else {}
    with serving.start("activate") as running:
        running.stdin.write(json.dumps(float_bundle.request(**extra)).encode() + b"\n")
        running.stdin.flush()
        while json.loads(running.stdout.readline()).get("step") != step:
            pass
        running.kill()
        running.communicate()
    assert serving.current("tiny") in (int8_bundle.release, float_bundle.release)
    assert serving.call("infer", kit.npz(input_0=tiny_data[:1]), model="tiny").result["samples"] == 1
    assert serving.call("recover").result["models"]["tiny"]["state"] in (
        "rolled_back",
        "committed",
        "soaking",
    )
    assert serving.call("activate", **float_bundle.request(**extra)).result["release"] == float_bundle.release
    assert list((serving.home / "tmp").iterdir()) == []


def test_a_zombie_does_not_count_as_alive() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it ended, and stays to be waited for
    try:
        assert not process_token.alive(str(child))
        assert process_token.alive(process_token.token())
    finally:
        os.waitpid(child, 0)
