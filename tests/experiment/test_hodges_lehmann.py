"""The Hodges-Lehmann interval: exact ranks, its approximation, ties, and how often it misses."""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeq.experiment.confidence_sequence import NOTHING, Interval
from edgeq.experiment.device_split import alpha_of, look_at, windows_of
from edgeq.experiment.hodges_lehmann import fewest, shift_interval

Array = NDArray[np.float64]


# As the Mann-Whitney count is discrete, an interval spends less than its alpha; how much less is known.
SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 2), (4, 4), (6, 3), (3, 6), (5, 5), (8, 4), (12, 7), (30, 25)]
ALPHAS = [0.4, 0.2, 0.1, 0.05, 0.02, 0.002]
# From (126, 126) on, the interval is made with the normal approximation of the count.
LARGE_SIZES = [(127, 127), (150, 140), (200, 120), (120, 200)]


@cache
def mann_whitney(a: int, b: int) -> Array:
    """Return P(U = 0), P(U = 1), ... by the recurrence of Mann and Whitney (1947), shape (a * b + 1,)."""
    without_last: list[Array] = []
    for i in range(a + 1):
        row = [np.ones(1)]
        for j in range(1, b + 1):
            chances = np.zeros(i * j + 1)
            if i == 0:
                chances[0] = 1
            else:  # the largest of all is of A with probability i / (i + j), and exceeds all j of B
                chances[j:] += i / (i + j) * without_last[j]
                chances[: i * (j - 1) + 1] += j / (i + j) * row[j - 1]
            row.append(chances)
        without_last = row
    return without_last[b]


def interval_of(a: Array, b: Array, alpha: float) -> Interval:
    return shift_interval((a, a), (b, b), alpha=alpha)[0]


def rank_of(a: int, b: int, alpha: float) -> int:
    """Return which of the sorted differences is the lower end; 0 where there is no end."""
    x, y = np.arange(a, dtype=float), np.arange(b, dtype=float) * a  # all differences are different
    interval = interval_of(x, y, alpha)
    if interval == NOTHING:
        return 0
    differences = sorted(float(j - i) for j in y for i in x)
    rank = differences.index(interval.low) + 1
    assert interval.high == differences[-rank], "as many are left out above as below"
    return rank


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 2), (4, 4), (6, 3), (9, 1)])
def test_the_recurrence_counts_all_assignments(a: int, b: int) -> None:
    counted = np.zeros(a * b + 1)
    for chosen in combinations(range(a + b), b):
        counted[sum(chosen) - b * (b - 1) // 2] += 1
    assert mann_whitney(a, b) * math.comb(a + b, b) == pytest.approx(counted)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("a", "b"), SIZES)
def test_the_rank_is_the_largest_that_alpha_allows(a: int, b: int, alpha: float) -> None:
    below = mann_whitney(a, b).cumsum() * (1 - 1e-12)
    rank = rank_of(a, b, alpha)
    assert rank == 0 or below[rank - 1] <= alpha / 2
    assert below[rank] > alpha / 2, "one more would miss too often"


@pytest.mark.first_is_quick
@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01, 0.002])
@pytest.mark.parametrize(("a", "b"), LARGE_SIZES)
def test_the_approximation_is_within_two_thousandths_of_the_exact_rank(a: int, b: int, alpha: float) -> None:
    below = mann_whitney(a, b).cumsum()
    exact = int(np.searchsorted(below, alpha / 2, side="right"))
    rank = rank_of(a, b, alpha)
    assert exact * (1 - 2e-3) <= rank <= exact
    assert 0.9 * alpha / 2 < below[rank - 1] <= alpha / 2


def test_the_exact_rank_is_used_as_far_as_it_is_affordable() -> None:
    """(125, 125) is the last square size with an exact rank; the approximation would give another one."""
    below = mann_whitney(125, 125).cumsum()
    assert rank_of(125, 125, 0.002) == int(np.searchsorted(below, 0.001, side="right"))


@pytest.mark.parametrize("alpha", [0.3, 0.1])
@pytest.mark.parametrize(
    "values",
    [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 1, 1, 1, 2, 2, 9, 9], [0, 0, 0, 0, 0, 0, 0, 0, 1], [5] * 9],
    ids=["distinct", "ties", "nearly all tied", "all tied"],
)
def test_every_assignment_of_the_same_devices_is_missed_no_more_often_than_alpha(
    values: list[int], alpha: float
) -> None:
    """No effect at all: over all ways to draw the arms, the share of intervals without 0 is at most alpha."""
    missed = []
    for chosen in combinations(range(9), 4):
        b = np.array([float(values[at]) for at in chosen])
        a = np.array([float(values[at]) for at in range(9) if at not in chosen])
        missed.append(not interval_of(a, b, alpha).holds(0.0))
    share = np.mean(missed)
    if len(set(values)) == 9:
        rank = rank_of(5, 4, alpha)
        assert share == pytest.approx(2 * mann_whitney(5, 4)[:rank].sum())
    assert share <= alpha


def test_the_estimate_is_the_median_of_all_differences() -> None:
    a, b = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 5.0, 9.0, 20.0, 21.0])
    interval, estimate = shift_interval((a, a), (b, b), alpha=0.05)
    differences = sorted(y - x for x in a for y in b)
    assert estimate == (differences[9] + differences[10]) / 2 == 6.0
    # P(U <= 1) = 2/126 is within 0.025; P(U <= 2) = 4/126 is not.
    assert (interval.low, interval.high) == (differences[1], differences[-2])
    wide, middle = shift_interval((a - 1, a + 3), (b - 2, b + 2), alpha=0.05)
    assert (wide.low, wide.high) == (interval.low - 5, interval.high + 3)
    assert middle == estimate - 1


def test_many_devices_are_missed_as_often_as_alpha_says() -> None:
    """In the range of the approximation: neither too often, nor so rarely that it is merely wide."""
    random = np.random.default_rng(4)
    alpha, runs, missed = 0.1, 800, 0
    for _ in range(runs):
        a, b = random.standard_t(2, 127), random.standard_t(2, 127) + 0.3
        missed += not interval_of(a, b, alpha).holds(0.3)
    deviation = math.sqrt(alpha * (1 - alpha) / runs)
    assert alpha - 4 * deviation <= missed / runs <= alpha + 4 * deviation


def test_it_holds_for_whatever_devices_there_are() -> None:
    random = np.random.default_rng(1)
    alpha, runs, missed = 0.05, 1500, 0
    for _ in range(runs):
        a, b = random.standard_t(1.5, 12), random.standard_t(1.5, 6) + 0.7
        interval, _ = shift_interval((a, a), (b, b), alpha=alpha)
        missed += not interval.holds(0.7)
    assert missed / runs <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / runs)
    assert missed / runs >= alpha / 4, "not merely wide"


def test_too_few_devices_say_nothing() -> None:
    few = (np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    interval, middle = shift_interval(few, few, alpha=0.05)
    assert (interval, middle) == (NOTHING, 0.0)
    assert shift_interval((few[0][:0], few[1][:0]), few, alpha=0.05) == (NOTHING, None)
    assert [fewest(alpha) for alpha in (1 / 3, 0.2, 0.05, 0.01, 0.0061)] == [2, 3, 4, 5, 6]


def test_a_value_known_within_bounds_widens_it() -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=20), random.normal(size=20)
    exact, _ = shift_interval((a, a), (b, b), alpha=0.05)
    loose, _ = shift_interval((a - 0.1, a + 0.1), (b - 0.1, b + 0.1), alpha=0.05)
    assert math.isclose(loose.low, exact.low - 0.2)
    assert math.isclose(loose.high, exact.high + 0.2)


def test_looks_double_and_spend_no_more_than_alpha() -> None:
    assert [look_at(count, 10) for count in (0, 19, 20, 39, 40, 79, 80)] == [0, 0, 1, 1, 2, 2, 3]
    assert [windows_of(look, 10) for look in range(5)] == [0, 20, 40, 80, 160]
    assert sum(alpha_of(look, 0.05) for look in range(1, 10_000)) < 0.05
