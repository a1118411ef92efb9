"""The device is the unit: rank intervals, exact; and what goes wrong when its calls are taken for units."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from edgeq.experiment.confidence_sequence import NOTHING
from edgeq.experiment.device_split import alpha_of, look_at, windows_of
from edgeq.experiment.hodges_lehmann import _rank, _ways, fewest, shift_interval


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 2), (4, 4), (6, 3), (9, 1)])
def test_the_distribution_is_that_of_all_assignments(a: int, b: int) -> None:
    counted = [0] * (a * b + 1)
    for chosen in combinations(range(a + b), b):
        counted[sum(chosen) - b * (b - 1) // 2] += 1
    assert list(_ways(max(a, b), min(a, b))) == counted


def test_the_approximation_agrees_where_both_can_be_had() -> None:
    for a, b in [(60, 60), (100, 20)]:
        total, seen, exact = math.comb(a + b, b), 0, 0
        for count, ways in enumerate(_ways(a, b)):
            seen += ways
            if seen > 0.01 * total:
                exact = count
                break
        deviation = math.sqrt(a * b * (a + b + 1) / 12)
        near = math.floor(a * b / 2 - 2.3263478740408408 * deviation - 0.5)
        assert abs(near - exact) <= 3
    assert _rank(200, 200, 0.01) < 20_000


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
    assert [fewest(alpha) for alpha in (0.2, 0.05, 0.01, 0.0061)] == [3, 4, 5, 6]


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
