"""Order statistics of latencies: nearest-rank percentiles, and a distribution-free interval of the median."""

from __future__ import annotations

import math

from edgeq_agent.wire import Json


def percentile(ordered: list[int], percent: float) -> int:
    """Return the nearest-rank percentile of sorted values."""
    return ordered[max(0, math.ceil(percent / 100.0 * len(ordered)) - 1)]


def median_interval(ordered: list[int]) -> list[int]:
    """Return the 95 % confidence interval of the median, by order statistics.

    Uses the normal approximation of Binomial(n, 1/2), widened to whole ranks. Below 6 values no interval has
    that confidence, and the whole range is returned. Assumes independent values.
    """
    count = len(ordered)
    if count < 6:
        return [ordered[0], ordered[-1]]
    half = 0.98 * math.sqrt(count)  # 1.96 * sqrt(n) / 2
    low = math.floor(count / 2.0 - half)
    high = math.ceil(count / 2.0 + half) + 1
    return [ordered[max(1, low) - 1], ordered[min(count, high) - 1]]


def summary(latencies: list[int]) -> Json:
    """Return the `latency_ns` of an edgeq.bench/1 document, from latencies in nanoseconds."""
    ordered = sorted(latencies)
    return {
        "count": len(ordered),
        "min": ordered[0],
        "mean": sum(ordered) / len(ordered),
        "p50": percentile(ordered, 50),
        "p90": percentile(ordered, 90),
        "p95": percentile(ordered, 95),
        "p99": percentile(ordered, 99),
        "max": ordered[-1],
        "p50_ci95": median_interval(ordered),
    }
