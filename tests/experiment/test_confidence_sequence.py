"""Confidence sequences cover at every look; the usual fixed-n interval does not."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeq.experiment.confidence_sequence import (
    NOTHING,
    Interval,
    mean_ends,
    mean_interval,
    mean_path,
    radius,
)

Array = NDArray[np.float64]
ALPHA, RUNS, BLOCKS = 0.05, 300, 400
# Six standard errors of a share of ALPHA among RUNS: more misses than that are not chance.
MOST = ALPHA + 6 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
FIXED = NormalDist().inv_cdf(1 - ALPHA / 2)
# A fixed-n interval needs at least so many values.
FEWEST = 30


def differences(random: np.random.Generator, effect: float) -> tuple[Array, Array]:
    """Return blocks' differences of right answers, and their conditional means.

    A block has 20 calls of A and 5 of B; how many are right swings slowly for both, as with the hour of the
    day.
    """
    swing = np.empty(BLOCKS)
    swing[0] = random.normal()
    for at in range(1, BLOCKS):
        swing[at] = 0.95 * swing[at - 1] + math.sqrt(1 - 0.95**2) * random.normal()
    rate = np.clip(0.8 + 0.08 * swing, 0.3, 0.95 - max(effect, 0))
    right = random.binomial(5, rate + effect) / 5 - random.binomial(20, rate) / 20
    return right, np.full(BLOCKS, effect)


def fixed_misses(values: Array, means: Array) -> bool:
    count = np.arange(1, len(values) + 1)
    mean = values.cumsum() / count
    deviation = np.sqrt(np.maximum((values**2).cumsum() / count - mean**2, 1e-12) / count)
    off = np.abs(mean - means.cumsum() / count) > FIXED * deviation
    return bool(off[FEWEST:].any())


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, -0.05])
def test_the_sequence_covers_at_every_look_and_a_fixed_n_interval_does_not(effect: float) -> None:
    random = np.random.default_rng(1)
    missed = fixed = 0
    for _ in range(RUNS):
        values, means = differences(random, effect)
        low, high = mean_path(values, values, span=2.0, alpha=ALPHA)
        target = means.cumsum() / np.arange(1, BLOCKS + 1)
        missed += bool(((low > target) | (high < target)).any())
        fixed += fixed_misses(values, means)
    assert missed / RUNS <= MOST, missed
    assert fixed / RUNS > 3 * ALPHA, "the very same looks would fool the usual interval"


@pytest.mark.slow
def test_the_sequence_covers_while_the_effect_changes() -> None:
    random = np.random.default_rng(2)
    effects = 0.1 * np.sin(np.arange(BLOCKS) / 40)
    missed = 0
    for _ in range(RUNS):
        values = random.binomial(10, 0.5 + effects) / 10 - random.binomial(10, 0.5, BLOCKS) / 10
        low, high = mean_path(values, values, span=2.0, alpha=ALPHA)
        target = effects.cumsum() / np.arange(1, BLOCKS + 1)
        missed += bool(((low > target) | (high < target)).any())
    assert missed / RUNS <= MOST


@pytest.mark.slow
def test_the_sequence_covers_with_rare_large_values() -> None:
    random = np.random.default_rng(3)
    missed = 0
    for _ in range(RUNS):
        values = np.where(random.random(BLOCKS) < 0.01, 1.0, 0.0)
        low, high = mean_path(values, values, span=1.0, alpha=ALPHA)
        missed += bool(((low > 0.01) | (high < 0.01)).any())
    assert missed / RUNS <= MOST


@pytest.mark.slow
def test_the_bound_is_nearly_tight() -> None:
    """With alpha near 1 the bound is crossed often: the misses are not few because nothing could miss."""
    random = np.random.default_rng(4)
    signs = random.choice([-0.5, 0.5], size=(200, BLOCKS))
    missed = 0
    for values in signs:
        low, high = mean_path(values, values, span=1.0, alpha=0.9)
        missed += bool(((low > 0) | (high < 0)).any())
    assert missed > 20


def test_how_much_wider_it_is_than_a_fixed_n_interval() -> None:
    """What looking at any time costs; docs/experiments.md quotes it."""
    random = np.random.default_rng(5)
    widths = {}
    for count in (100, 1000, 10_000):
        values = random.normal(0, 0.1, count).clip(-1, 1)
        interval = mean_interval(values, values, span=2.0, alpha=ALPHA)
        widths[count] = (interval.high - interval.low) / (2 * FIXED * values.std() / math.sqrt(count))
    assert 4 < widths[100] < 8
    assert 2 < widths[1000] < 3.5
    assert 1.7 < widths[10_000] < 2.4
    assert widths[100] > widths[1000] > widths[10_000]


def test_a_real_difference_is_detected() -> None:
    random = np.random.default_rng(6)
    values, _ = differences(random, -0.2)
    interval = mean_interval(values, values, span=2.0, alpha=ALPHA)
    assert -0.3 < interval.low < -0.2 < interval.high < -0.1


@settings(max_examples=50)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0.001, 0.5))
def test_the_interval_is_the_end_of_the_path(numbers: list[float], alpha: float) -> None:
    values = np.array(numbers)
    low, high = mean_path(values, values, span=2.0, alpha=alpha)
    interval = mean_interval(values, values, span=2.0, alpha=alpha)
    assert math.isclose(interval.low, low[-1], abs_tol=1e-9)
    assert math.isclose(interval.high, high[-1], abs_tol=1e-9)
    assert interval.low <= values.mean() <= interval.high
    columns = np.stack([values, -values], axis=1)
    lows, highs = mean_ends(columns, columns, span=2.0, alpha=alpha)
    assert np.allclose([lows[0], -lows[1]], [interval.low, interval.high])
    assert np.allclose([highs[0], -highs[1]], [interval.high, interval.low])


@given(st.floats(0, 1e7), st.floats(0, 1e4), st.floats(1e-6, 0.5))
def test_the_bound_grows_with_variance_and_confidence(v: float, more: float, alpha: float) -> None:
    one, two = radius(np.array([v, v + more]), alpha)
    assert 0 < one <= two * (1 + 1e-9)
    assert radius(np.array(v), alpha / 2) >= one


def test_bounds_on_values_widen_the_interval_by_as_much() -> None:
    values = np.random.default_rng(7).normal(0, 0.1, 500).clip(-1, 1)
    exact = mean_interval(values, values, span=2.0, alpha=ALPHA)
    loose = mean_interval(values - 0.05, values + 0.05, span=2.0, alpha=ALPHA)
    assert math.isclose(loose.low, exact.low - 0.05, abs_tol=1e-3)
    assert math.isclose(loose.high, exact.high + 0.05, abs_tol=1e-3)


def test_the_interval_without_data_is_open() -> None:
    nothing = np.array([])
    assert mean_interval(nothing, nothing, span=2.0, alpha=ALPHA) == NOTHING
    assert NOTHING.is_open
    assert Interval(low=-3.0, high=2.0).within(-1, 1) == NOTHING
    assert Interval(low=-3.0, high=0.5).within(-1, 1) == Interval(low=-1.0, high=0.5)


def _mixture(s: float, v: float) -> float:
    """Return the mixture of the bound's docstring, term by term."""
    lambdas = [0.9 / 1.5**number for number in range(20)]
    harmonic = sum(1 / number for number in range(1, 21))
    return sum(
        math.exp(rate * s - (-math.log(1 - rate) - rate) * v) / (number * harmonic)
        for number, rate in enumerate(lambdas, 1)
    )


@pytest.mark.parametrize("alpha", [0.5, 0.05, 1e-4])
@pytest.mark.parametrize("v", [0.0, 0.5, 3.0, 100.0, 1e5])
def test_the_bound_is_where_the_mixture_reaches_one_over_alpha(v: float, alpha: float) -> None:
    bound = float(radius(np.array(v), alpha))
    assert _mixture(bound, v) == pytest.approx(1 / alpha, rel=1e-6)


def test_the_path_is_the_sum_with_its_bound_divided_by_the_count() -> None:
    """Each value is predicted by the mean of a zero and of the values before it."""
    random = np.random.default_rng(8)
    low = random.uniform(-1, 0.5, 12)
    high = low + random.uniform(0, 0.4, 12)
    lows, highs = mean_path(low, high, span=3.0, alpha=0.1)
    for count in range(1, 13):
        ends = []
        for values, sign in ((low[:count].tolist(), -1), (high[:count].tolist(), 1)):
            predictions = [sum(values[:at]) / (at + 1) for at in range(count)]
            v = sum(((x - guess) / 3.0) ** 2 for x, guess in zip(values, predictions, strict=True))
            ends.append((sum(values) + sign * 3.0 * float(radius(np.array(v), 0.05))) / count)
        assert [lows[count - 1], highs[count - 1]] == pytest.approx(ends, rel=1e-9)


def test_an_interval_has_its_ends_and_is_open_with_one_infinite_end() -> None:
    interval = Interval(low=-1.0, high=2.0)
    assert [interval.holds(value) for value in (-1.001, -1.0, 0.0, 2.0, 2.001)] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert not interval.is_open
    assert Interval(low=-math.inf, high=2.0).is_open
    assert Interval(low=-1.0, high=math.inf).is_open
    assert interval.within(-1.0, 2.0) == NOTHING
    assert interval.within(-1.0, 3.0) == interval
    assert interval.within(-2.0, 2.0) == interval
    assert interval.within(-0.5, 1.5) == NOTHING


def test_nothing_excludes_no_value_and_is_what_there_is_without_values() -> None:
    assert (NOTHING.low, NOTHING.high) == (-math.inf, math.inf)
    assert NOTHING.holds(-1e300)
    assert NOTHING.holds(1e300)
    empty, one = np.array([]), np.array([0.5])
    assert mean_interval(empty, empty, span=2.0, alpha=ALPHA) == NOTHING
    assert mean_interval(one, one, span=2.0, alpha=ALPHA) != NOTHING
