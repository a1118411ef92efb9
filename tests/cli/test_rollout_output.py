"""Output of rollouts: what Ctrl-C leaves to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.cli.rollout.output import progress
from edgeq.cli.ui import App, Ui
from edgeq.fleet.rollout.abort import DEFAULT, parse_rules
from edgeq.fleet.rollout.events import Done, Event
from edgeq.fleet.rollout.spec import OnAbort, RolloutSpec, StageSpec
from edgeq.fleet.rollout.state import Rollout

SPEC = RolloutSpec(
    rollout="m-1",
    model="m",
    release="r",
    selectors=("pi",),
    stages=(StageSpec(text="all", devices=("pi",)),),
    rules=parse_rules(DEFAULT),
    soak_s=0.0,
    on_abort=OnAbort.STOP,
    at_once=1,
)


@pytest.mark.parametrize(("events", "line"), [([], "next: edgeq rollout resume m-1"), ([Done()], "")])
def test_ctrl_c_names_the_command_that_continues_an_unfinished_rollout(
    capsys: pytest.CaptureFixture[str], events: list[Event], line: str
) -> None:
    rollout = Rollout(SPEC)
    for event in events:
        rollout.apply(event)

    def interrupted() -> None:
        with progress(App(workspace=Path(), ui=Ui())) as printer:
            printer.rollout = rollout
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err.strip() == line
