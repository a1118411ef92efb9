"""What the collected windows say of an experiment: for each figure an interval, and a finding in a word."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.experiment import call_split, device_split
from edgeq.experiment.arm_counts import Part, Seen, edges_of, seen_in, total
from edgeq.experiment.config import By, Terms
from edgeq.experiment.figures import Figure, Finding, Metric
from edgeq.store import WindowRecord
from edgeq.store.records import to_text

__all__ = ["Finding", "Judged", "Metric", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What an experiment has come to.

    Attributes:
        alpha: the chance that any of the intervals, at any look, is wrong. windows: those of the arms, and
            `others` that belong to no arm (merged of several, or another release). data_sha256: of all
            windows of the experiment, in the order of their arrival. arms: what each arm counted. silent:
            devices of which no window came. keyed: calls whose arm came from a key, in a split by calls.
    """

    metrics: tuple[Metric, ...]
    alpha: float
    windows: int
    others: int
    data_sha256: str
    arms: Mapping[str, Part]
    silent: tuple[str, ...]
    keyed: int

    def metric(self, figure: Figure) -> Metric:
        """Return what is known of one figure."""
        return next(metric for metric in self.metrics if metric.figure is figure)

    @property
    def worse(self) -> tuple[Metric, ...]:
        """The figures in which B is shown to be worse."""
        return tuple(metric for metric in self.metrics if metric.finding is Finding.WORSE)

    @property
    def words(self) -> str:
        """The verdict in one line."""
        shown = [metric for metric in self.metrics if metric.finding not in (Finding.NOTHING, Finding.SAME)]
        if all(metric.finding is Finding.NOTHING for metric in self.metrics):
            return "nothing can be said yet"
        if not shown:
            return "no difference is shown"
        return "; ".join(f"B is {metric.finding.value} in {metric.figure.value}" for metric in shown)

    def to_dict(self) -> dict[str, Any]:
        """The whole as in `--json` and in the record of a decision."""
        return {
            "verdict": self.words,
            "alpha": self.alpha,
            "windows": self.windows,
            "others": self.others,
            "data_sha256": self.data_sha256,
            "silent": list(self.silent),
            "keyed": self.keyed,
            "counted": {
                arm: {
                    "inferences": part.attempts,
                    "errors": part.failed,
                    "labelled": part.labelled,
                    "correct": part.correct,
                }
                for arm, part in self.arms.items()
            },
            "metrics": [metric.to_dict() for metric in self.metrics],
        }


def judge(
    terms: Terms, windows: Sequence[WindowRecord], references: Mapping[str, Mapping[str, Any] | None]
) -> Judged:
    """Return what the windows of an experiment say.

    Args:
        windows: of the experiment, in the order of their arrival.
        references: of both releases (`edgeq.reference/1`), for the edges of their confidence bins.
    """
    edges = {release: edges_of(reference) for release, reference in references.items()}
    seen, others = seen_in(windows, terms.releases, edges)
    seen = [one for one in seen if one.device in terms.arms]
    arms = {arm: total(one.part for one in seen if one.arm == arm) for arm in ("a", "b")}
    # Each figure gets its part of alpha: that any of them is ever wrong has no larger chance than alpha.
    alpha = terms.alpha / len(Figure)
    metrics = (
        call_split.metrics(seen, arms, alpha=alpha)
        if terms.by is By.CALLS
        else device_split.metrics(_of_their_arm(seen, terms), arms, devices=len(terms.devices), alpha=alpha)
    )
    return Judged(
        metrics=metrics,
        alpha=terms.alpha,
        windows=len(seen),
        others=others,
        data_sha256=_digest(windows),
        arms=arms,
        silent=tuple(sorted(set(terms.devices) - {one.device for one in seen})),
        keyed=arms["a"].keyed + arms["b"].keyed if terms.by is By.CALLS else 0,
    )


def _of_their_arm(seen: Sequence[Seen], terms: Terms) -> list[Seen]:
    return [one for one in seen if terms.arms[one.device] == one.arm]


def _digest(windows: Sequence[WindowRecord]) -> str:
    found = hashlib.sha256()
    for window in windows:
        found.update(hashlib.sha256(to_text(window.body).encode("ascii")).digest())
    return found.hexdigest()
