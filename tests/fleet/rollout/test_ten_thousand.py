"""Ten thousand devices of which 30 % never answer, 2 % flap and 1 % lie, through the real runner."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from edgeq.fleet.rollout.events import Advanced, DeviceEvent, Ended
from edgeq.fleet.rollout.outcomes import Outcome
from edgeq.fleet.rollout.runner import RunnerTimes
from edgeq.fleet.rollout.state import RolloutState
from edgeq.fleet.rollout.view import totals
from edgeq.testing.simulated_fleet import Behaviour as B

Make = Callable[..., Any]
COUNT = 10_000
STAGES = "1,10%,50%,100%"


@pytest.fixture
def ways() -> dict[int, B]:
    """By place in the order of the rollout: exactly 3000 that never answer, 200 that flap, 100 that lie."""
    kinds = [B.GONE] * 1000 + [B.SILENT] * 1000 + [B.MUTE] * 1000 + [B.FLAPPING] * 200 + [B.LYING] * 100
    kinds += [B.GOOD] * (COUNT - len(kinds))
    random.Random(20).shuffle(kinds)  # noqa: S311 - a shuffle that is the same each time
    kinds[0] = B.GOOD if kinds[0] not in (B.GOOD, B.FLAPPING) else kinds[0]
    return dict(enumerate(kinds))


def silent(way: B) -> bool:
    return way in (B.GONE, B.SILENT, B.MUTE)


def first_place_over(ways: dict[int, B], *, percent: int, minimum: int) -> int:
    """Return how many devices are attempted when silence first exceeds a limit: counted here by hand."""
    seen = 0
    for place in range(COUNT):
        seen += silent(ways[place])
        if place + 1 >= minimum and 100 * seen > percent * (place + 1):
            return place + 1
    raise AssertionError("never")


@pytest.mark.first_is_quick
@pytest.mark.parametrize(("percent", "minimum"), [(10, 5), (25, 200), (29, 400)])
def test_it_aborts_at_the_stated_count(
    simulated: Make, ways: dict[int, B], percent: int, minimum: int
) -> None:
    abort = f"failed>5%,rolled_back>5%,silent>{percent}%,min={minimum}"
    run = simulated(ways, devices=COUNT, stages="100%", abort=abort)
    rollout = run.run()
    stated = first_place_over(ways, percent=percent, minimum=minimum)
    assert rollout.state is RolloutState.ABORTED
    assert rollout.tally.attempted == stated
    assert len(run.fleet.touched) == stated
    assert run.fleet.touched == set(rollout.spec.devices[:stated])


@pytest.mark.slow
def test_with_64_at_once_no_more_are_touched_than_were_in_flight(simulated: Make, ways: dict[int, B]) -> None:
    run = simulated(ways, devices=COUNT, stages="100%", abort="silent>25%,min=200", at_once=64)
    rollout = run.run()
    assert rollout.state is RolloutState.ABORTED
    fired = next(place for place, event in enumerate(run.events) if event.kind == "aborted")
    results = ("outcome", "deployed")
    attempted = sum(event.kind in results for event in run.events[:fired])
    assert attempted >= 200
    assert len(run.fleet.touched) <= attempted + 63
    assert all(event.kind in results for event in run.events[fired + 1 :])


@pytest.mark.parametrize("abort", ["failed>5%", "silent>40%,min=1000", "failed>5%,silent>40%,min=2000"])
def test_no_stage_is_entered_on_silence(simulated: Make, ways: dict[int, B], abort: str) -> None:
    # The first stage is one device, and it is silent: no rule can have been judged on it.
    run = simulated({**ways, 0: B.MUTE}, devices=COUNT, stages=STAGES, abort=abort)
    rollout = run.run()
    assert (rollout.state, rollout.stage) == (RolloutState.PAUSED, 0)
    assert len(run.fleet.touched) == 1
    assert "timed_out" in rollout.reason


@pytest.mark.slow
def test_where_silence_is_allowed_the_rest_is_done_and_every_liar_is_found(
    simulated: Make, ways: dict[int, B]
) -> None:
    # A sample above what is in flight: devices that fail at once are heard before those that take their time.
    abort = "silent>45%,rolled_back>20%,failed>5%,min=300"
    run = simulated(ways, devices=COUNT, stages=STAGES, abort=abort, soak_s=600, at_once=256)
    rollout = run.run(RunnerTimes(query_s=60))
    assert rollout.state is RolloutState.DONE, rollout.reason
    kinds = Counter(ways.values())
    got = totals(rollout)
    assert got[Outcome.ROLLED_BACK] == kinds[B.LYING] > 90
    assert got[Outcome.UNREACHABLE] == kinds[B.GONE]
    assert got[Outcome.TIMED_OUT] == kinds[B.SILENT] + kinds[B.MUTE]
    assert got[Outcome.SUCCEEDED] == kinds[B.GOOD] + kinds[B.FLAPPING]
    truth = run.fleet.truth()
    for name, record in rollout.records.items():
        assert (record.outcome is Outcome.SUCCEEDED) == (truth[name] == "new-release"), name
    deploys = Counter({name: n for (verb, name), n in run.fleet.calls.items() if verb == "deploy"})
    assert set(deploys.values()) == {1}
    assert run.fleet.needless == []
    # Nothing of a later stage was begun before every device of the stage before had an outcome.
    stage_of = {name: at for at, stage in enumerate(rollout.spec.stages) for name in stage.devices}
    here, open_now = 0, Counter(stage_of.values())
    for event in run.events:
        if isinstance(event, Advanced):
            assert open_now[here] == 0
            here = event.stage
        elif isinstance(event, Ended):
            open_now[stage_of[event.device]] -= 1
        if isinstance(event, DeviceEvent):
            assert stage_of[event.device] == here
