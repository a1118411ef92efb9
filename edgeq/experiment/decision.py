"""Whether the data justify a decision: what stands against it, one line each."""

from __future__ import annotations

from enum import StrEnum

from edgeq.experiment.analyze import Judged
from edgeq.experiment.config import Terms
from edgeq.experiment.figures import Figure, Finding
from edgeq.units import format_percent


class Decision(StrEnum):
    """What can be decided."""

    PROMOTE = "promote"
    REJECT = "reject"


def objections(terms: Terms, judged: Judged, decision: Decision) -> tuple[str, ...]:
    """Return what stands against a decision; nothing: the data justify it.

    To promote, B may be worse in nothing that is known to be good or bad, and must be shown to be no worse
    than the terms allow in right answers and in the 95th percentile of latency. To reject, B must be shown
    to be worse in something.
    """
    if decision is Decision.REJECT:
        return () if judged.worse else ("nothing shows that B is worse",)
    found = [f"B is shown to be worse in {metric.figure.value}" for metric in judged.worse]
    feedback, latency = judged.metric(Figure.FEEDBACK), judged.metric(Figure.P95)
    if feedback.finding is Finding.NOTHING:
        found.append("nothing is known of right answers: there is too little feedback")
    elif feedback.interval.low < -terms.worse_by and feedback.finding is not Finding.WORSE:
        allowed = format_percent(terms.worse_by)
        found.append(
            f"B may give {format_percent(-feedback.interval.low)} fewer right answers, {allowed} are allowed"
        )
    if latency.finding is Finding.NOTHING:
        found.append("nothing is known of latency: there are too few windows")
    elif latency.interval.high > 1 + terms.slower_by and latency.finding is not Finding.WORSE:
        allowed = format_percent(terms.slower_by)
        more = format_percent(latency.interval.high - 1)
        found.append(f"B's latency p95 may be {more} higher, {allowed} are allowed")
    if judged.keyed:
        found.append(
            f"{judged.keyed} calls came with a key, which keeps its arm: the intervals do not cover that"
        )
    return tuple(found)
