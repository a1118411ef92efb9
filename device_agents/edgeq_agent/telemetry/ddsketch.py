"""DDSketch: a mergeable histogram of positive integers whose quantiles are right within 1 percent.

Masson, Rim, Lee: DDSketch, VLDB 2019. A value lies in the bucket ceil(log_gamma(value)), gamma = (1 + a) /
(1 - a).
"""

from __future__ import annotations

import math

from edgeq_agent.wire import Json

RELATIVE_ACCURACY = 0.01
GAMMA = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)
LOG_GAMMA = math.log(GAMMA)


class Sketch:
    """Counts values by bucket."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.sum_ns = 0
        self.min_ns = 0
        self.max_ns = 0

    def add(self, value_ns: int) -> None:
        """Count one value; anything below 1 ns counts as 1 ns."""
        value = max(1, value_ns)
        index = math.ceil(math.log(value) / LOG_GAMMA)
        self.counts[index] = self.counts.get(index, 0) + 1
        self.min_ns = min(self.min_ns, value) if self.count else value
        self.max_ns = max(self.max_ns, value)
        self.count += 1
        self.sum_ns += value

    def add_counts(self, counts: dict[int, int], sum_ns: int, min_ns: int, max_ns: int) -> None:
        """Count values that somebody else has put into buckets; there must be at least one."""
        for index, count in counts.items():
            self.counts[index] = self.counts.get(index, 0) + count
        self.min_ns = min(self.min_ns, min_ns) if self.count else min_ns
        self.max_ns = max(self.max_ns, max_ns)
        self.count += sum(counts.values())
        self.sum_ns += sum_ns

    def quantile(self, fraction: float) -> float:
        """Return the value (ns) at a quantile in [0, 1], within RELATIVE_ACCURACY; 0.0 when empty."""
        rank = fraction * (self.count - 1)
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen > rank:
                return 2 * GAMMA**index / (GAMMA + 1)
        return 0.0

    def body(self) -> Json:
        """Return what travels."""
        return {
            "relative_accuracy": RELATIVE_ACCURACY,
            "counts": {str(index): self.counts[index] for index in sorted(self.counts)},
            "count": self.count,
            "sum_ns": self.sum_ns,
            "min_ns": self.min_ns,
            "max_ns": self.max_ns,
        }


def merge(first: Json, second: Json) -> Json:
    """Return the body of the sketch that would have counted the values of both: exact, in any order."""
    counts = dict(first["counts"])
    for index, count in second["counts"].items():
        counts[index] = counts.get(index, 0) + count
    filled = [part for part in (first, second) if part["count"]]
    return {
        "relative_accuracy": first["relative_accuracy"],
        "counts": counts,
        "count": first["count"] + second["count"],
        "sum_ns": first["sum_ns"] + second["sum_ns"],
        "min_ns": min((part["min_ns"] for part in filled), default=0),
        "max_ns": max((part["max_ns"] for part in filled), default=0),
    }
