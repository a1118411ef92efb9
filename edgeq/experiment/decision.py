"""Decisions on an experiment, and the objections of the data to each of them."""

from __future__ import annotations

from enum import StrEnum

from edgeq.experiment.analyze import ExperimentResult
from edgeq.experiment.config import ExperimentConfig
from edgeq.experiment.metrics import Conclusion, MetricKind
from edgeq.experiment.record import ExperimentState
from edgeq.units import format_percent


class Decision(StrEnum):
    """How an experiment may end."""

    PROMOTE = "promote"
    REJECT = "reject"

    @property
    def state(self) -> ExperimentState:
        """The state of an experiment that ended by this decision."""
        return ExperimentState.PROMOTED if self is Decision.PROMOTE else ExperimentState.REJECTED


def objections(config: ExperimentConfig, result: ExperimentResult, decision: Decision) -> tuple[str, ...]:
    """Return the objections to a decision; without any, the data justify it.

    Promoting B requires that no metric shows B to be worse, and that right answers and latency p95 are shown
    to be within the limits of the configuration. Rejecting B requires a metric that shows B to be worse.
    """
    if decision is Decision.REJECT:
        return () if result.worse else ("nothing shows that B is worse",)
    reasons = [f"B is shown to be worse in {metric.kind.value}" for metric in result.worse]
    feedback, latency = result.metric(MetricKind.FEEDBACK), result.metric(MetricKind.P95)
    if feedback.conclusion is Conclusion.NOTHING:
        reasons.append("right answers cannot be compared yet: there is too little feedback")
    elif feedback.interval.low < -config.worse_by and feedback.conclusion is not Conclusion.WORSE:
        allowed = format_percent(config.worse_by)
        reasons.append(
            f"B may give {format_percent(-feedback.interval.low)} fewer right answers; the limit is {allowed}"
        )
    if latency.conclusion is Conclusion.NOTHING:
        reasons.append("latency cannot be compared yet: there are too few windows")
    elif latency.interval.high > 1 + config.slower_by and latency.conclusion is not Conclusion.WORSE:
        allowed = format_percent(config.slower_by)
        more = format_percent(latency.interval.high - 1)
        reasons.append(f"B's latency p95 may be {more} higher; the limit is {allowed}")
    if result.keyed:
        reasons.append(
            f"{result.keyed} calls came with a key, which fixes their arm: the intervals do not cover that"
        )
    return tuple(reasons)
