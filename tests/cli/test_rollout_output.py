"""Output of rollouts: what Ctrl-C leaves to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.cli.hints import fitting
from edgeq.cli.rollout.output import progress
from edgeq.cli.ui import App, Ui
from edgeq.fleet.rollout import view
from edgeq.fleet.rollout.abort import DEFAULT, parse_rules
from edgeq.fleet.rollout.events import (
    Aborted,
    Done,
    Ended,
    Event,
    Looked,
    Paused,
    Retried,
    RolledBack,
    RollingBack,
    Soaking,
)
from edgeq.fleet.rollout.outcomes import Outcome
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


def aborted(*more: Event) -> Rollout:
    rollout = Rollout(SPEC)
    failed = Ended(device="pi", outcome=Outcome.FAILED, reason="pi: kws: 3 of 6 golden outputs differ")
    events = (Looked(device="pi", before=None), failed, Aborted(reason="1 of 1 devices failed"), *more)
    for event in events:
        rollout.apply(event)
    return rollout


def test_the_soak_is_shown_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    spec = replace(SPEC, soak_s=600.0, soak="10m")
    assert RolloutSpec.from_dict(spec.to_dict()) == spec
    rollout = Rollout(spec)
    with progress(App(workspace=Path(), ui=Ui())) as printer:
        printer.event(rollout, Soaking(stage=0))
        printer.event(Rollout(replace(SPEC, soak_s=90.0)), Soaking(stage=0))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("; ")[2] for line in lines] == ["soaks for 10m", "soaks for 90 s"]


def test_the_hint_after_an_abort_retries_the_failed_devices() -> None:
    rollout = aborted()
    error = view.error_of(rollout)
    assert error is not None
    assert error.message == "m-1: aborted after 1 of 1 devices: 1 of 1 devices failed"
    assert "`edgeq rollout resume m-1 --retry-failed`" in error.hint
    assert "`edgeq rollout rollback m-1`" in error.hint
    # What the hint names is possible now.
    rollout.apply(Retried(devices=("pi",)))
    assert view.error_of(rollout) is None


def test_a_hint_never_names_a_retry_that_is_refused() -> None:
    error = view.error_of(aborted(RollingBack(reason="x"), RolledBack(reason="x")))
    assert error is not None
    assert "resume" not in error.hint
    assert "`edgeq rollout show m-1`" in error.hint


def test_the_hint_after_a_retry_that_paused_again_keeps_the_other_way() -> None:
    rollout = Rollout(SPEC)
    rollout.apply(Paused(reason="x", gate=0))
    error = view.error_of(rollout)
    assert error is not None
    words = ["rollout", "resume", "m-1", "--retry-failed"]
    assert fitting(error.hint, words=words, devices=(), code="EQ824") == (
        "or continue without them with `edgeq rollout resume m-1 --accept`"
    )
