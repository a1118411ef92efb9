"""95 % intervals of shares of samples, and of the difference of two shares on the same samples."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ends = tuple[float, float]
_ROUNDING = 1e-9
Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How many fewer samples one model has right than another on the same samples.

    Attributes:
        share: of all samples, -1..1; negative where it has more right.
        ci95: its 95 % interval, `newcombe`.
        smallest: the smallest drop that as many samples could show, `smallest_drop`.
    """

    share: float
    ci95: Ends
    smallest: float | None


def z_of(comparisons: int) -> float:
    """Return the normal quantile for one of several intervals that hold together with 95 % (Bonferroni)."""
    return Z95 if comparisons == 1 else NormalDist().inv_cdf(1 - 0.025 / comparisons)


def wilson(successes: npt.ArrayLike, count: npt.ArrayLike, *, z: float = Z95) -> tuple[Array, Array]:
    """Return the ends of the 95 % interval of a proportion, elementwise.

    Wilson's score interval without continuity correction (Wilson 1927, doi 10.1080/01621459.1927.10502953),
    which Brown, Cai and DasGupta (2001, doi 10.1214/ss/1009213286) recommend for few samples and for shares
    near 0 and 1. It assumes independent samples.

    Args:
        successes: 0..count.
        count: at least 1.
        z: quantile of the standard normal distribution, for another level than 95 %.
    """
    n = np.asarray(count, np.float64)
    share = np.asarray(successes, np.float64) / n
    middle = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # At a share of 0 or 1 rounding would move the end away from it.
    low = np.where(share == 0, 0.0, (middle - spread) / scale)
    high = np.where(share == 1, 1.0, (middle + spread) / scale)
    return low, high


def newcombe(
    both: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    neither: npt.ArrayLike,
    *,
    z: float = Z95,
) -> tuple[Array, Array]:
    """Return the ends of the 95 % interval of the difference of two paired proportions, elementwise.

    The difference is (first - second) / count. Method 10 of Newcombe (1998, Statistics in Medicine 17,
    2635-2650, doi 10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C): Wilson's intervals of
    both proportions, combined with their correlation.

    Args:
        both, first, second, neither: how many samples both models have right, only the first, only the
            second, and neither.
        z: as in `wilson`.
    """
    a, b, c, d = (np.asarray(each, np.float64) for each in (both, first, second, neither))
    n = a + b + c + d
    one, other = (a + b) / n, (a + c) / n
    low_1, high_1 = wilson(a + b, n, z=z)
    low_2, high_2 = wilson(a + c, n, z=z)
    product = (a + b) * (c + d) * (a + c) * (b + d)
    cross = a * d - b * c
    corrected = np.where(cross > n / 2, cross - n / 2, np.where(cross >= 0, 0.0, cross))
    phi = np.where(product > 0, corrected / np.sqrt(np.where(product > 0, product, 1.0)), 0.0)
    below = _combined(one - low_1, high_2 - other, phi)
    above = _combined(high_1 - one, other - low_2, phi)
    return one - other - below, one - other + above


def _combined(left: Array, right: Array, phi: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(left**2 - 2 * phi * left * right + right**2, 0.0)), np.float64)


def share_ci95(right: npt.NDArray[np.bool_]) -> Ends:
    """Return the 95 % interval of the share of samples that are right."""
    low, high = wilson(int(right.sum()), len(right))
    return float(low), float(high)


def drop(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], *, comparisons: int = 1) -> Drop:
    """Return by how much the share of right samples fell.

    Args:
        before, after: whether each sample is right, for the same samples in the same order.
        comparisons: how many drops this one is chosen from: all their intervals hold together with 95 %.
    """
    z = z_of(comparisons)
    counts = (before & after, before & ~after, ~before & after, ~before & ~after)
    low, high = newcombe(*(int(each.sum()) for each in counts), z=z)
    return Drop(
        share=(int(before.sum()) - int(after.sum())) / len(before),
        ci95=(float(low), float(high)),
        smallest=smallest_drop(int(before.sum()), len(before), z=z),
    )


def smallest_drop(right: int, count: int, *, z: float = Z95) -> float | None:
    """Return the smallest share of samples whose loss would be shown; None where no loss would be.

    The best case counts: some of the samples that were right become wrong and no other sample changes. A drop
    is shown where its interval lies above zero.

    Args:
        right: how many of the `count` samples the model before has right.
        z: as in `wilson`.
    """
    lost = np.arange(right + 1)
    low, _ = newcombe(right - lost, lost, np.zeros_like(lost), np.full_like(lost, count - right), z=z)
    shown = np.flatnonzero(low > 0)
    return float(lost[shown[0]] / count) if len(shown) else None


def samples_needed(drop: float) -> int | None:
    """Return how many samples can show a drop at best; None for a drop of nothing.

    It is the least count at which the loss of this share of the samples is shown if the model before has all
    of them right: the inverse of `smallest_drop` of a perfect model.

    Args:
        drop: share of samples, 0..1.
    """
    if drop <= 0:
        return None
    # The more samples, the more of them must be lost to show it. So the first number of lost samples that is
    # shown, at the least count of which it is not a larger share than `drop`, gives the least count of all.
    for lost in itertools.count(1):
        count = max(lost, math.ceil(lost / drop - _ROUNDING))
        low, _ = newcombe(count - lost, lost, 0, 0)
        if low > 0:
            return count
    raise AssertionError("an endless count has ended")
