"""By how much one group of devices is above another: the rank interval of Hodges and Lehmann, exact.

Source: Hodges & Lehmann 1963; Mann & Whitney 1947. The assignment of devices to arms is by chance, so under
an effect that adds the same to each device every set of ranks is equally likely: nothing is assumed of how
devices differ.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.confidence_sequence import NOTHING, Interval

Array = NDArray[np.float64]

# Above this many steps the normal approximation is good to the last rank that matters.
_EXACT_STEPS = 2_000_000


def shift_interval(
    a: tuple[Array, Array], b: tuple[Array, Array], *, alpha: float
) -> tuple[Interval, float | None]:
    """Return an interval for how much larger B's values are, and the middle of all differences.

    Args:
        a, b: (at least, at most) of each device's value, one for each device.

    Returns:
        `NOTHING` where there are too few devices for any statement at this alpha; the middle is None without
        a device on each side.
    """
    least, most = _differences(b[0], a[1]), _differences(b[1], a[0])
    if not len(least):
        return NOTHING, None
    middle = float(np.median((least + most) / 2))
    rank = _rank(len(a[0]), len(b[0]), alpha / 2)
    if rank == 0:
        return NOTHING, middle
    return Interval(low=float(least[rank - 1]), high=float(most[-rank])), middle


def fewest(alpha: float) -> int:
    """Return how many devices each arm needs, where both have as many, before anything can be said."""
    count = 1
    while 1 / math.comb(2 * count, count) > alpha / 2:
        count += 1
    return count


def _differences(b: Array, a: Array) -> Array:
    found: Array = np.sort((b[:, None] - a[None, :]).ravel())
    return found


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
    """Return in how many of the orders of (a, b) devices U is 0, 1, ... (the Gaussian binomial)."""
    ways = [1] + [0] * (a * b)
    for part in range(1, b + 1):
        for at in range(a * b, a + part - 1, -1):
            ways[at] -= ways[at - a - part]
        for at in range(part, a * b + 1):
            ways[at] += ways[at - part]
    return tuple(ways)
