"""The figures that two releases are compared by, and what an interval says of one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.experiment.arm_counts import Part, bucket_at
from edgeq.experiment.confidence_sequence import Interval


class Figure(StrEnum):
    """What is compared: B less A, or for latencies B over A."""

    FEEDBACK = "right answers"
    P50 = "latency p50"
    P95 = "latency p95"
    ERRORS = "failed calls"
    CONFIDENCE = "confidence"

    @property
    def key(self) -> str:
        """Its name in JSON."""
        return {
            "right answers": "feedback",
            "latency p50": "latency_p50",
            "latency p95": "latency_p95",
            "failed calls": "errors",
            "confidence": "confidence",
        }[self.value]

    @property
    def quantile(self) -> float | None:
        """Of the latency, where it is one."""
        return {"latency p50": 0.5, "latency p95": 0.95}.get(self.value)

    @property
    def neutral(self) -> float:
        """Where there is no difference."""
        return 0.0 if self.quantile is None else 1.0


class Finding(StrEnum):
    """What is shown."""

    WORSE = "worse"
    BETTER = "better"
    LOWER = "lower"
    HIGHER = "higher"
    SAME = "not shown to differ"
    NOTHING = "not known yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of an experiment.

    Attributes:
        interval: of B less A, or of B over A, right at all looks at once.
        estimate: the likeliest value, or None.
        units: how many independent values the interval is made of, and what `unit` they are.
        a, b: the plain figures of the arms, all calls together; in ns for latencies.
    """

    figure: Figure
    interval: Interval
    estimate: float | None
    units: int
    unit: str
    a: float | None
    b: float | None

    @property
    def finding(self) -> Finding:
        """What the interval shows."""
        low, high, neutral = self.interval.low, self.interval.high, self.figure.neutral
        if low <= neutral <= high:
            return Finding.NOTHING if self.interval.says_nothing else Finding.SAME
        above = low > neutral
        if self.figure is Figure.CONFIDENCE:
            return Finding.HIGHER if above else Finding.LOWER
        good = above is (self.figure is Figure.FEEDBACK)
        return Finding.BETTER if good else Finding.WORSE

    def to_dict(self) -> dict[str, Any]:
        """The metric as in `--json`; an open end is null."""
        return {
            "metric": self.figure.key,
            "scale": "difference" if self.figure.quantile is None else "ratio",
            "interval": [self.interval.low, self.interval.high],
            "estimate": self.estimate,
            "finding": self.finding.value,
            "units": self.units,
            "unit": self.unit,
            "a": self.a,
            "b": self.b,
        }


def plain(figure: Figure, part: Part) -> float | None:
    """Return an arm's figure over all of its calls; of confidence the middle of what the bins allow."""
    if figure.quantile is not None:
        if not part.timed:
            return None
        gamma = (1 + part.accuracy) / (1 - part.accuracy)
        return 2 * gamma ** bucket_at(part.latency, figure.quantile) / (gamma + 1)
    low, high, count = bounds(figure, part)
    return (low + high) / 2 if count else None


def bounds(figure: Figure, part: Part) -> tuple[float, float, int]:
    """Return what a share or mean is at least and at most, and of how many it is."""
    if figure is Figure.FEEDBACK:
        count, low, high = part.labelled, float(part.correct), float(part.correct)
    elif figure is Figure.ERRORS:
        count, low, high = part.attempts, float(part.failed), float(part.failed)
    else:
        count, low, high = part.confident
    return (low / count, high / count, count) if count else (0.0, 0.0, 0)
