"""The controller dies at every write of its journal, before, after and in it; the next one converges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from edgeq.fleet.rollout.outcomes import Outcome
from edgeq.fleet.rollout.state import RolloutState
from edgeq.testing.simulated_fleet import Behaviour as B

Make = Callable[..., Any]

# Every way that a rollout can take: through to the end, an abort, an abort with its rollback.
MIXED = {2: B.GONE, 4: B.FLAPPING, 5: B.LYING, 7: B.FULL, 9: B.CRASHING}
RUNS: dict[str, tuple[Mapping[int, B], dict[str, Any], RolloutState]] = {
    "done": (MIXED, {"stages": "2,50%,100%", "abort": "any>40%,min=5", "soak_s": 90}, RolloutState.DONE),
    "paused": ({0: B.SILENT}, {"stages": "1,100%", "abort": "failed>5%"}, RolloutState.PAUSED),
    "aborted": (
        {1: B.FLAPPING, 3: B.FAILING, 5: B.FAILING},
        {"stages": "2,100%", "abort": "failed>20%,min=6", "soak_s": 0},
        RolloutState.ABORTED,
    ),
    "rolled back": (
        {1: B.FLAPPING, 3: B.FAILING, 6: B.FAILING},
        {"stages": "2,100%", "abort": "failed>=2", "soak_s": 0, "on_abort": "rollback"},
        RolloutState.ROLLED_BACK,
    ),
}


def result(run: Any, rollout: Any) -> dict[str, Any]:
    records = {
        name: (record.outcome, record.before, record.restored) for name, record in rollout.records.items()
    }
    return {
        "state": rollout.state,
        "stage": rollout.stage,
        "records": records,
        "truth": run.fleet.truth(),
        "touched": run.fleet.touched,
    }


@pytest.mark.first_is_quick
@pytest.mark.parametrize("how", ["before", "after", "torn"])
@pytest.mark.parametrize("name", RUNS)
def test_a_controller_that_died_at_any_write_is_continued_to_the_same_end(
    simulated: Make, mortal: Any, killed: type[BaseException], name: str, how: str
) -> None:
    behaviours, spec, end = RUNS[name]
    undisturbed = simulated(behaviours, folder="undisturbed", **spec)
    mortal.writes = 0
    expected = result(undisturbed, undisturbed.run())
    writes = mortal.writes
    assert expected["state"] is end
    assert writes >= 2
    for at in range(1, writes + 1):
        run = simulated(behaviours, folder=f"{how}{at}", **spec)
        mortal.writes, mortal.dies_at, mortal.how = 0, at, how
        with pytest.raises(killed):
            run.run()
        mortal.dies_at = None
        assert result(run, run.run()) == expected, (how, at)
        assert run.fleet.needless == [], (how, at)


def test_with_several_at_once_nothing_that_was_in_flight_is_done_twice(
    simulated: Make, mortal: Any, killed: type[BaseException]
) -> None:
    spec = {"stages": "4,100%", "abort": "any>60%,min=5", "soak_s": 30, "at_once": 4, "devices": 12}
    undisturbed = simulated(MIXED, folder="undisturbed", **spec)
    mortal.writes = 0
    expected = result(undisturbed, undisturbed.run())
    for at in range(1, mortal.writes + 1):
        run = simulated(MIXED, folder=f"at{at}", **spec)
        mortal.writes, mortal.dies_at, mortal.how = 0, at, "before"
        with pytest.raises(killed):
            run.run()
        mortal.dies_at = None
        got = result(run, run.run())
        assert got == expected, at
        assert run.fleet.needless == [], at


def test_dying_again_and_again_ends_all_the_same(
    simulated: Make, mortal: Any, killed: type[BaseException]
) -> None:
    behaviours, spec, _ = RUNS["done"]
    undisturbed = simulated(behaviours, folder="undisturbed", **spec)
    expected = result(undisturbed, undisturbed.run())
    run = simulated(behaviours, folder="often", **spec)
    mortal.how = "after"
    for _lives in range(200):
        mortal.writes, mortal.dies_at = 0, 2
        try:
            rollout = run.run()
            break
        except killed:
            continue
    assert result(run, rollout) == expected


def test_what_the_journal_says_of_a_device_is_not_believed_over_the_device(simulated: Make) -> None:
    # The journal says that it was looked at, and so may have been deployed to; the device says what is.
    run = simulated({}, devices=2, stages="100%")
    first, second = run.read().spec.devices
    run.append(event="looked", device=first, before="old-release")
    run.append(event="looked", device=second, before="old-release")
    run.fleet.serving[first].append("new-release")
    rollout = run.run()
    assert run.fleet.calls["deploy", first] == 0
    assert run.fleet.calls["deploy", second] == 1
    assert rollout.touched(first)
    # And one that the journal calls deployed is asked before it counts as a success.
    other = simulated({}, devices=2, stages="100%", folder="other")
    other.append(event="looked", device=first, before="old-release")
    other.append(event="deployed", device=first, changed=True)
    assert other.run().records[first].outcome is Outcome.ROLLED_BACK


def test_an_aborted_rollout_only_queries_the_devices_without_an_outcome(simulated: Make) -> None:
    run = simulated({3: B.GONE}, devices=5, stages="100%")
    names = run.read().spec.devices
    for name in names[:4]:
        run.append(event="looked", device=name, before="old-release")
    run.append(event="aborted", reason="asked for")
    run.fleet.serving[names[0]].append("new-release")
    rollout = run.run()
    assert rollout.state is RolloutState.ABORTED
    assert rollout.records[names[0]].deployed
    assert not rollout.touched(names[1])
    assert rollout.records[names[3]].outcome is Outcome.UNREACHABLE
    assert {verb for verb, _ in run.fleet.calls} == {"status"}
