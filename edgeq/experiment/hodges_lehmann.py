"""Hodges-Lehmann interval: the exact rank interval for the shift between two groups of devices.

Source: Hodges & Lehmann 1963; Mann & Whitney 1947. Devices are assigned to arms at random, so if the effect
adds the same to each device, every assignment of ranks is equally likely. Nothing is assumed about the
distribution of devices.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.confidence_sequence import NOTHING, Interval

Array = NDArray[np.float64]

# Above this many steps the normal approximation gives the same rank as the exact count.
_EXACT_STEPS = 2_000_000


def shift_interval(
    a: tuple[Array, Array], b: tuple[Array, Array], *, alpha: float
) -> tuple[Interval, float | None]:
    """Return the interval for the shift from A to B, and the Hodges-Lehmann estimate.

    Args:
        a, b: lower and upper bounds of each device's value, shape (devices,) each.
        alpha: error probability of both sides together.

    Returns:
        The interval is `NOTHING` when there are too few devices for this alpha; the estimate (the median of
        all differences) is None unless each group has a device.
    """
    least, most = _differences(b[0], a[1]), _differences(b[1], a[0])
    if not len(least):
        return NOTHING, None
    median = float(np.median((least + most) / 2))
    rank = _rank(len(a[0]), len(b[0]), alpha / 2)
    if rank == 0:
        return NOTHING, median
    return Interval(low=float(least[rank - 1]), high=float(most[-rank])), median


def fewest(alpha: float) -> int:
    """Return how many devices each of two equal groups needs before the interval can be finite."""
    count = 1
    while 1 / math.comb(2 * count, count) > alpha / 2:
        count += 1
    return count


def _differences(b: Array, a: Array) -> Array:
    differences: Array = np.sort((b[:, None] - a[None, :]).ravel())
    return differences


def _rank(a: int, b: int, tail: float) -> int:
    """Return the largest c with P(U <= c - 1) <= tail, U the Mann-Whitney count of (a, b) devices."""
    if a * b * min(a, b) > _EXACT_STEPS:
        deviation = math.sqrt(a * b * (a + b + 1) / 12)
        return max(0, math.floor(a * b / 2 + NormalDist().inv_cdf(tail) * deviation - 0.5))
    total = math.comb(a + b, b)
    limit, seen = tail * total, 0
    for count, ways in enumerate(_ways(max(a, b), min(a, b))):
        seen += ways
        if seen > limit:
            return count
    return a * b


@lru_cache(maxsize=64)
def _ways(a: int, b: int) -> tuple[int, ...]:
    """Return the number of orders of (a, b) devices with U = 0, 1, ... (Gaussian binomial coefficients)."""
    ways = [1] + [0] * (a * b)
    for part in range(1, b + 1):
        for at in range(a * b, a + part - 1, -1):
            ways[at] -= ways[at - a - part]
        for at in range(part, a * b + 1):
            ways[at] += ways[at - part]
    return tuple(ways)
