"""The end of a run: limits that hold beyond doubt, and phases that cannot improve what is missed."""

from __future__ import annotations

import pytest

from edgeq.blueprint import Limits
from edgeq.pipeline.phases import Phase
from edgeq.pipeline.stopping import is_proven, needless
from tests.pipeline.candidates import blueprint, selected, variant

TIGHT = blueprint(Limits(accuracy_drop_max=0.01))


def test_a_drop_is_proven_only_with_its_whole_interval() -> None:
    for doubt, proven in ((0.004, True), (0.006, False)):
        chosen = selected(TIGHT, variant("int8", 10, 0.895, doubt=doubt)).chosen
        assert chosen is not None
        assert is_proven(chosen) is proven


def test_a_limit_that_was_not_measured_does_not_keep_a_run_going() -> None:
    plan = blueprint(Limits(accuracy_drop_max=0.01, latency_p95_ns_max=5))
    selection = selected(plan, variant("int8", 10, 0.9))
    assert needless(Phase.CALIBRATION, selection) == "int8 meets every limit"
    slow = selected(plan, variant("int8", 10, 0.9), p95_ns={"int8": 6})
    assert slow.chosen is None


def test_a_doubt_is_worth_the_next_phase() -> None:
    assert needless(Phase.CALIBRATION, selected(TIGHT, variant("int8", 10, 0.9, doubt=0.02))) == ""
    assert needless(Phase.CALIBRATION, selected(TIGHT, variant("int8", 10, 0.9))) == "int8 meets every limit"


def test_a_preferred_candidate_that_fails_is_worth_the_next_phase() -> None:
    selection = selected(TIGHT, variant("float16", 20, 0.9), variant("int8-plain", 10, 0.8))
    assert selection.chosen is not None
    assert selection.chosen.variant.name == "float16"
    assert needless(Phase.CALIBRATION, selection) == ""


def test_a_candidate_that_fails_and_is_not_preferred_is_not() -> None:
    selection = selected(TIGHT, variant("float16", 5, 0.9), variant("int8-plain", 10, 0.8))
    assert needless(Phase.CALIBRATION, selection) == "float16 meets every limit"


def test_a_candidate_that_the_blueprint_does_not_list_is_not() -> None:
    selection = selected(
        TIGHT, variant("float16", 20, 0.9), variant("int8-plain", 10, 0.8), unlisted=("int8-plain",)
    )
    assert needless(Phase.CALIBRATION, selection) == "float16 meets every limit"


@pytest.mark.parametrize(
    ("phase", "helps"),
    [
        (Phase.CALIBRATION, False),
        (Phase.MIXED_PRECISION, False),
        (Phase.PRUNING, True),
        (Phase.QAT, False),
    ],
)
def test_a_phase_must_be_able_to_improve_what_is_missed(phase: Phase, helps: bool) -> None:
    plan = blueprint(Limits(accuracy_drop_max=0.01, size_bytes_max=5))
    reason = needless(phase, selected(plan, variant("int8", 10, 0.9)))
    assert (reason == "") is helps
    assert helps or "size_max missed" in reason


def test_without_a_limit_on_quality_the_calibration_runs() -> None:
    selection = selected(blueprint(Limits(size_bytes_max=50)), variant("int8-plain", 10, 0.5))
    assert needless(Phase.CALIBRATION, selection) == ""
    assert needless(Phase.MIXED_PRECISION, selection) == "int8-plain meets every limit"
