"""Latency sketches of windows (DDSketch): exact merging, quantiles with a promised relative error.

Source: Masson, Rim, Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySketch:
    """A distribution of latencies.

    Attributes:
        relative_accuracy: quantiles are within this relative error of a true sample.
        counts: samples by index i = ceil(log_gamma(latency_ns)), gamma = (1 + a) / (1 - a).
    """

    relative_accuracy: float
    counts: Mapping[int, int]
    count: int
    sum_ns: int
    min_ns: int
    max_ns: int

    @property
    def mean_ns(self) -> float:
        """Return the exact mean."""
        return self.sum_ns / self.count

    def quantile_ns(self, q: float) -> float:
        """Return the q-quantile, 0 <= q <= 1, within the sketch's relative accuracy."""
        rank = q * (self.count - 1)
        gamma = (1 + self.relative_accuracy) / (1 - self.relative_accuracy)
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen > rank:
                middle: float = 2 * gamma**index / (gamma + 1)
                return min(max(middle, float(self.min_ns)), float(self.max_ns))
        return float(self.max_ns)


def merge_latency(sketches: Iterable[Mapping[str, Any]]) -> LatencySketch | None:
    """Return the sketch of the union of windows' `latency` bodies, or None when they hold no sample.

    Raises:
        DataError: sketches of different accuracy, which cannot be merged exactly.
    """
    counts: Counter[int] = Counter()
    accuracy: float | None = None
    count = sum_ns = max_ns = 0
    least = math.inf
    for body in sketches:
        if not body["count"]:
            continue
        if accuracy not in (None, body["relative_accuracy"]):
            raise DataError(
                "latency sketches",
                expected=f"relative accuracy {accuracy}",
                got=str(body["relative_accuracy"]),
                hint="monitor one release at a time",
            )
        accuracy = float(body["relative_accuracy"])
        counts.update({int(index): int(number) for index, number in body["counts"].items()})
        count += int(body["count"])
        sum_ns += int(body["sum_ns"])
        least = min(least, body["min_ns"])
        max_ns = max(max_ns, int(body["max_ns"]))
    if accuracy is None:
        return None
    return LatencySketch(
        relative_accuracy=accuracy,
        counts=dict(counts),
        count=count,
        sum_ns=sum_ns,
        min_ns=int(least),
        max_ns=max_ns,
    )
