"""Rollouts over devices that behave in every way: what advances, what stops, and what is never assumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.fleet.rollout.abort import Tally
from edgeq.fleet.rollout.events import Paused
from edgeq.fleet.rollout.outcomes import FAILURES, Outcome
from edgeq.fleet.rollout.scheduler import Transition, decide
from edgeq.fleet.rollout.state import Rollout, RolloutState
from edgeq.fleet.rollout.view import totals
from edgeq.testing.simulated_fleet import Behaviour as B

Make = Callable[..., Any]


def outcomes(rollout: Any) -> list[str]:
    return [rollout.records[name].outcome.value for name in rollout.spec.devices]


def test_a_good_fleet_is_done_stage_by_stage_with_its_soaks(simulated: Make) -> None:
    run = simulated({}, soak_s=60)
    rollout = run.run()
    assert rollout.state is RolloutState.DONE
    assert totals(rollout) == {Outcome.SUCCEEDED: 10}
    assert run.fleet.time.now_s() >= 3 * 60
    assert set(run.fleet.truth().values()) == {"new-release"}
    assert {count for (verb, _), count in run.fleet.calls.items() if verb == "deploy"} == {1}
    order = [event.kind for event in run.events if event.kind in ("soaking", "advanced", "done")]
    assert order == ["soaking", "advanced", "soaking", "advanced", "soaking", "done"]


@pytest.mark.parametrize("verb", ["status", "deploy", "soak"])
def test_a_bug_on_one_device_is_its_failure_and_the_rollout_goes_on(
    simulated: Make, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = simulated({}, abort="any>20%,min=5")
    name, call = run.read().spec.devices[3], getattr(run.fleet, verb)

    def act(device: str) -> Any:
        if device == name:
            raise RecursionError("deep")
        return call(device)

    monkeypatch.setattr(run.fleet, verb, act)
    rollout = run.run()
    assert rollout.state is RolloutState.DONE
    assert outcomes(rollout).count("succeeded") == 9
    assert outcomes(rollout)[3] == "failed"
    assert "a bug: RecursionError: deep" in rollout.records[name].reason
    assert list(tmp_path.glob(f"edgeq-crash-*{name}.log"))


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (B.GONE, "unreachable"),
        (B.SILENT, "timed_out"),
        (B.MUTE, "timed_out"),
        (B.FULL, "refused"),
        (B.FAILING, "failed"),
        (B.LYING, "rolled_back"),
        (B.CRASHING, "rolled_back"),
        (B.SLOW_SOAK, "timed_out"),
        (B.FLAPPING, "succeeded"),
    ],
)
def test_each_kind_of_device_has_its_own_outcome(simulated: Make, way: B, expected: str) -> None:
    run = simulated({3: way}, abort="any>20%,min=5")
    rollout = run.run()
    assert outcomes(rollout)[3] == expected
    assert outcomes(rollout).count("succeeded") == 9 + (expected == "succeeded")
    assert rollout.state is RolloutState.DONE
    assert all(
        rollout.records[name].reason
        for name in rollout.spec.devices
        if rollout.records[name].outcome in FAILURES
    )


@pytest.mark.parametrize("way", [way for way in B if way not in (B.GOOD, B.FLAPPING)])
def test_a_first_stage_that_fails_never_advances(simulated: Make, way: B) -> None:
    run = simulated({0: way}, stages="1,100%", abort="any>50%,min=5")
    rollout = run.run()
    assert (rollout.state, rollout.stage) == (RolloutState.PAUSED, 0)
    assert run.fleet.touched == {rollout.spec.devices[0]}
    assert "which no evaluated abort rule covers" in rollout.reason


def test_silence_at_the_end_of_a_soak_does_not_count_as_success(simulated: Make) -> None:
    run = simulated({}, stages="2,100%", abort="silent>60%", soak_s=120)
    victim = run.read().spec.devices[1]
    seen = run.events

    class Lost(list):  # type: ignore[type-arg]
        def append(self, event: Any) -> None:
            if event.kind == "soaking":
                run.fleet.behaviours[victim] = B.SILENT
            super().append(event)

    run.events = Lost(seen)
    rollout = run.run()
    assert rollout.records[victim].outcome is Outcome.TIMED_OUT
    assert rollout.records[victim].deployed
    assert rollout.state is RolloutState.DONE


def test_a_whole_stage_that_is_silent_pauses_even_where_the_rule_allows_it(simulated: Make) -> None:
    run = simulated({4: B.GONE}, devices=5, stages="4,100%", abort="silent>20%")
    rollout = run.run()
    assert (rollout.state, rollout.stage) == (RolloutState.PAUSED, 1)
    assert "none of its devices succeeded" in rollout.reason


def test_an_abort_stops_at_once_and_leaves_the_others_alone(simulated: Make) -> None:
    run = simulated({3: B.FAILING, 5: B.FAILING}, stages="100%", abort="failed>20%,min=5")
    rollout = run.run()
    assert rollout.state is RolloutState.ABORTED
    assert rollout.reason == "2 of 6 devices failed (33.33 %, limit 20 %)"
    assert run.fleet.touched == set(rollout.spec.devices[:6])
    # 1 of 4 was 25 %, but the rule needs 5 devices; 1 of 5 is exactly 20 %, which is not more than 20 %.
    assert outcomes(rollout)[6:] == ["pending"] * 4


def test_an_abort_during_the_soak_stops_the_next_stage(simulated: Make) -> None:
    run = simulated({0: B.CRASHING}, stages="2,100%", abort="rolled_back>=1", soak_s=120)
    rollout = run.run()
    assert rollout.state is RolloutState.ABORTED
    assert len(run.fleet.touched) == 2
    assert run.fleet.time.now_s() < 120


def test_on_abort_rollback_puts_back_what_this_rollout_changed_and_nothing_else(simulated: Make) -> None:
    run = simulated({4: B.FAILING, 5: B.FAILING}, stages="100%", abort="failed>=2", on_abort="rollback")
    served_already, gone_since = run.read().spec.devices[0:2]
    run.fleet.serving[served_already] = ["old-release", "new-release"]
    rollout = run.run()
    assert (rollout.state, rollout.aborted) == (RolloutState.ROLLED_BACK, True)
    truth = run.fleet.truth()
    assert truth.pop(served_already) == "new-release"
    assert set(truth.values()) == {"old-release"}
    assert run.fleet.calls["rollback", served_already] == 0
    assert not rollout.touched(served_already)
    assert run.fleet.calls["rollback", gone_since] == 1


def test_a_rollback_of_a_fleet_says_who_could_not_be_put_back_and_can_be_run_again(simulated: Make) -> None:
    run = simulated({}, stages="100%", soak_s=0)
    first, second, third = run.run().spec.devices[:3]
    run.fleet.behaviours[first] = B.GONE
    run.fleet.serving[second] = ["new-release"]  # nothing to go back to
    run.fleet.serving[third].append("someone-elses")
    run.append(event="rolling_back", reason="asked for")
    rollout = run.run()
    assert rollout.state is RolloutState.ROLLED_BACK
    got = {name: rollout.records[name].restored for name in (first, second, third)}
    assert got == {first: "failed", second: "failed", third: "nothing"}
    assert "returns to nothing" in rollout.records[second].restored_reason
    assert run.fleet.truth()[third] == "someone-elses"
    run.fleet.behaviours[first] = B.GOOD
    run.append(event="rolling_back", reason="asked for")
    assert run.run().records[first].restored == "restored"
    assert run.fleet.truth()[first] == "old-release"
    assert {count for (verb, _), count in run.fleet.calls.items() if verb == "rollback"} == {1}


def test_the_first_release_of_a_model_cannot_be_rolled_back(simulated: Make) -> None:
    run = simulated({}, devices=1, stages="1")
    run.fleet.serving = {name: [] for name in run.fleet.serving}
    run.run()
    run.append(event="rolling_back")
    (record,) = run.run().records.values()
    assert record.restored == "failed"
    assert "first release" in record.restored_reason


def test_a_pause_waits_for_the_devices_in_flight_and_resume_goes_on(simulated: Make) -> None:
    run = simulated({}, at_once=4, stages="100%")
    asked: list[str | None] = [None]
    run.request = lambda: asked[0]

    class Asking(list):  # type: ignore[type-arg]
        def append(self, event: Any) -> None:
            if event.kind == "deployed":
                asked[0] = "pause"

    run.events = Asking()
    rollout = run.run()
    assert rollout.state is RolloutState.PAUSED
    assert outcomes(rollout) == ["pending"] * 10
    deployed = [name for name, record in rollout.records.items() if record.deployed]
    assert 0 < len(deployed) <= 4
    assert all(run.fleet.truth()[name] == "new-release" for name in deployed)
    run.events, asked[0] = [], None
    assert run.run().state is RolloutState.PAUSED  # a pause is not ended by a new controller
    run.append(event="resumed")
    assert run.run().state is RolloutState.DONE
    assert {count for (verb, _), count in run.fleet.calls.items() if verb == "deploy"} == {1}


def test_a_request_to_abort_aborts(simulated: Make) -> None:
    run = simulated({})
    run.request = lambda: "abort"
    assert run.run().state is RolloutState.ABORTED
    assert run.fleet.touched == set()


def test_the_failed_can_be_tried_again_and_the_others_are_not_touched(simulated: Make) -> None:
    run = simulated({0: B.GONE, 1: B.FULL}, stages="3,100%", abort="any>=9")
    run.fleet.behaviours[run.read().spec.devices[5]] = B.SILENT
    first = run.run()
    assert totals(first) == {
        Outcome.SUCCEEDED: 7,
        Outcome.UNREACHABLE: 1,
        Outcome.REFUSED: 1,
        Outcome.TIMED_OUT: 1,
    }
    failed = [name for name, record in first.records.items() if record.outcome in FAILURES]
    run.fleet.behaviours.update(dict.fromkeys(failed, B.GOOD))
    before = dict(run.fleet.calls)
    run.append(event="retried", devices=failed)
    second = run.run()
    assert totals(second) == {Outcome.SUCCEEDED: 10}
    assert {
        name for (verb, name), count in run.fleet.calls.items() if count != before.get((verb, name))
    } == set(failed)


def test_a_gate_opens_only_for_the_stage_whose_failures_were_accepted(simulated: Make) -> None:
    run = simulated({0: B.GONE, 1: B.GOOD, 2: B.GONE}, stages="2,5,100%", abort="failed>5%")
    assert run.run().state is RolloutState.PAUSED
    run.append(event="resumed")
    assert run.run().state is RolloutState.PAUSED  # a plain resume judges again, and comes to the same
    run.append(event="resumed", accepted=0)
    rollout = run.run()
    assert (rollout.state, rollout.stage) == (RolloutState.PAUSED, 1)
    run.append(event="resumed", accepted=1)
    assert run.run().state is RolloutState.DONE


def test_counts_that_do_not_add_up_pause(simulated: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = simulated({}, stages="100%")
    monkeypatch.setattr(Rollout, "tally", Tally(attempted=1, failed={Outcome.FAILED: 3}))
    step = decide(run.read())
    assert isinstance(step, Transition)
    assert isinstance(step.event, Paused)
    assert "cannot be evaluated" in step.event.reason
