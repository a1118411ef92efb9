"""DDSketch: a mergeable histogram of latencies whose quantiles have a relative error of at most 1 percent.

Source: Masson, Rim, Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees". A value v is counted in bucket ceil(log_gamma(v)) with gamma = (1 + a) / (1 - a), where a is the
relative accuracy.

Device and host share this module: standard library only, Python 3.7.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Iterable, Mapping

from edgeq_agent.wire import Json

RELATIVE_ACCURACY = 0.01
GAMMA = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)
LOG_GAMMA = math.log(GAMMA)


@dataclass(frozen=True)
class Sketch:
    """A distribution of latencies.

    Attributes:
        relative_accuracy: a quantile differs from a true sample by at most this share.
        counts: samples by bucket index.
        count: samples in all buckets.
        sum_ns: exact sum of the samples.
        min_ns, max_ns: exact smallest and largest sample; 0 without a sample.
    """

    relative_accuracy: float = RELATIVE_ACCURACY
    counts: Mapping[int, int] = field(default_factory=dict)
    count: int = 0
    sum_ns: int = 0
    min_ns: int = 0
    max_ns: int = 0

    @property
    def gamma(self) -> float:
        """The ratio of the upper to the lower edge of every bucket."""
        return (1 + self.relative_accuracy) / (1 - self.relative_accuracy)

    @property
    def mean_ns(self) -> float:
        """The exact mean; the sketch must not be empty."""
        return self.sum_ns / self.count

    def quantile_ns(self, fraction: float) -> float:
        """Return a quantile in ns, within the relative accuracy and between the exact minimum and maximum.

        Args:
            fraction: 0 (smallest sample) to 1 (largest sample).

        Raises:
            ValueError: the sketch is empty.
        """
        if not self.count:
            raise ValueError("an empty sketch has no quantile")
        # The true sample lies between the minimum and the maximum, so clamping never adds an error.
        value = bucket_middle(bucket_at(self.counts, fraction * (self.count - 1)), self.gamma)
        return min(max(value, float(self.min_ns)), float(self.max_ns))

    def to_json(self) -> Json:
        """Return the sketch as it stands in a telemetry window."""
        return {
            "relative_accuracy": self.relative_accuracy,
            "counts": {str(index): self.counts[index] for index in sorted(self.counts)},
            "count": self.count,
            "sum_ns": self.sum_ns,
            "min_ns": self.min_ns,
            "max_ns": self.max_ns,
        }


def bucket_at(counts: Mapping[int, int], rank: float) -> int:
    """Return the first bucket up to which more than `rank` samples lie; there must be a sample."""
    seen = 0
    for index in sorted(counts):
        seen += counts[index]
        if seen > rank:
            return index
    return max(counts)


def bucket_middle(index: int, gamma: float) -> float:
    """Return the value in a bucket whose relative distance to both edges is the relative accuracy.

    It is infinite where no float holds it, as in a window that a broken device made up.
    """
    try:
        return 2 * gamma**index / (gamma + 1)
    except OverflowError:
        return math.inf


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """Return the sketch of the union of the samples: exact, in any order; empty ones change nothing.

    Raises:
        ValueError: the sketches differ in relative accuracy, so that their buckets do not match.
    """
    filled = [sketch for sketch in sketches if sketch.count]
    if not filled:
        return Sketch()
    accuracies = sorted({sketch.relative_accuracy for sketch in filled})
    if len(accuracies) > 1:
        shown = ", ".join(str(accuracy) for accuracy in accuracies)
        raise ValueError(f"sketches of different relative accuracy cannot be merged: {shown}")
    counts: Counter[int] = Counter()
    for sketch in filled:
        counts.update(sketch.counts)
    return Sketch(
        relative_accuracy=accuracies[0],
        counts=dict(counts),
        count=sum(sketch.count for sketch in filled),
        sum_ns=sum(sketch.sum_ns for sketch in filled),
        min_ns=min(sketch.min_ns for sketch in filled),
        max_ns=max(sketch.max_ns for sketch in filled),
    )


class SketchBuilder:
    """Counts latencies by bucket until a window ends."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._count = 0
        self._sum_ns = 0
        self._min_ns = 0
        self._max_ns = 0

    def add(self, value_ns: int) -> None:
        """Count one latency; a value below 1 ns counts as 1 ns."""
        value = max(1, value_ns)
        self.add_counts({math.ceil(math.log(value) / LOG_GAMMA): 1}, value, value, value)

    def add_counts(self, counts: Mapping[int, int], sum_ns: int, min_ns: int, max_ns: int) -> None:
        """Count latencies that the caller has sorted into buckets; there must be at least one."""
        for index, count in counts.items():
            self._counts[index] = self._counts.get(index, 0) + count
        self._min_ns = min(self._min_ns, min_ns) if self._count else min_ns
        self._max_ns = max(self._max_ns, max_ns)
        self._count += sum(counts.values())
        self._sum_ns += sum_ns

    def build(self) -> Sketch:
        """Return the sketch of what was counted so far."""
        return Sketch(
            counts=dict(self._counts),
            count=self._count,
            sum_ns=self._sum_ns,
            min_ns=self._min_ns,
            max_ns=self._max_ns,
        )
