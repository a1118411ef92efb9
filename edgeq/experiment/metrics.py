"""Metrics: the quantities by which two releases are compared, and the conclusion that an interval allows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.experiment.arm_counts import ArmCounts, quantile_bucket
from edgeq.experiment.confidence_sequence import Interval
from edgeq_agent.telemetry.ddsketch import bucket_middle


class MetricKind(StrEnum):
    """A compared quantity: the difference B - A of a rate or mean, or the ratio B / A of a latency."""

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
        """The quantile of a latency; None for other quantities."""
        return {"latency p50": 0.5, "latency p95": 0.95}.get(self.value)

    @property
    def neutral(self) -> float:
        """The value that means no difference."""
        return 0.0 if self.quantile is None else 1.0


class Conclusion(StrEnum):
    """What an interval shows of release B."""

    WORSE = "worse"
    BETTER = "better"
    LOWER = "lower"
    HIGHER = "higher"
    SAME = "not shown to differ"
    NOTHING = "not known yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One compared quantity with its interval.

    Attributes:
        interval: anytime-valid interval of B - A, or of B / A for a latency.
        estimate: point estimate, or None without data.
        units: number of independent values behind the interval.
        unit: what these values are: `blocks` or `devices`.
        a, b: the arms' plain values over all calls, in ns for latencies; None without data.
    """

    kind: MetricKind
    interval: Interval
    estimate: float | None
    units: int
    unit: str
    a: float | None
    b: float | None

    @property
    def conclusion(self) -> Conclusion:
        """What the interval shows."""
        low, high, neutral = self.interval.low, self.interval.high, self.kind.neutral
        if low <= neutral <= high:
            return Conclusion.NOTHING if self.interval.is_open else Conclusion.SAME
        above = low > neutral
        if self.kind is MetricKind.CONFIDENCE:
            return Conclusion.HIGHER if above else Conclusion.LOWER
        good = above is (self.kind is MetricKind.FEEDBACK)
        return Conclusion.BETTER if good else Conclusion.WORSE

    def to_dict(self) -> dict[str, Any]:
        """Return the metric as in `--json`; an infinite end becomes null there."""
        return {
            "metric": self.kind.key,
            "scale": "difference" if self.kind.quantile is None else "ratio",
            "interval": [self.interval.low, self.interval.high],
            "estimate": self.estimate,
            "finding": self.conclusion.value,
            "units": self.units,
            "unit": self.unit,
            "a": self.a,
            "b": self.b,
        }


def arm_value(kind: MetricKind, counts: ArmCounts) -> float | None:
    """Return an arm's value over all its calls, of confidence the middle of its bounds; None if empty."""
    if kind.quantile is not None:
        if not counts.timed:
            return None
        gamma = (1 + counts.accuracy) / (1 - counts.accuracy)
        return bucket_middle(quantile_bucket(counts.latency, kind.quantile), gamma)
    low, high, count = bounds(kind, counts)
    return (low + high) / 2 if count else None


def bounds(kind: MetricKind, counts: ArmCounts) -> tuple[float, float, int]:
    """Return the lower and upper bound of a rate or mean, and the number of calls behind it."""
    if kind is MetricKind.FEEDBACK:
        count, low, high = counts.labelled, float(counts.correct), float(counts.correct)
    elif kind is MetricKind.ERRORS:
        count, low, high = counts.attempts, float(counts.failed), float(counts.failed)
    else:
        count, low, high = counts.confidence
    return (low / count, high / count, count) if count else (0.0, 0.0, 0)
