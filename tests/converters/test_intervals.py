"""Intervals of shares: known values, and coverage of the true value by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgeq_converters.intervals import drop, newcombe, samples_needed, share_ci95, smallest_drop, wilson, z_of

ROUNDS = 20_000


def test_published_intervals() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    for (right, count), ends in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert np.array(wilson(right, count)) == pytest.approx(np.array(ends), abs=5e-5)
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650, table II, method 10.
    assert np.array(newcombe(36, 12, 2, 0)) == pytest.approx(np.array((0.0569, 0.3404)), abs=5e-4)


def test_intervals_of_several_comparisons_hold_together() -> None:
    # Bonferroni: each of three has the level 1 - 0.05 / 3.
    exact = binomtest(13, 40).proportion_ci(confidence_level=1 - 0.05 / 3, method="wilson")
    assert np.array(wilson(13, 40, z=z_of(3))) == pytest.approx(np.array([exact.low, exact.high]))
    assert z_of(1) == pytest.approx(1.95996, abs=1e-5)
    before, after = np.arange(40) < 36, np.arange(40) < 27
    one, of_many = drop(before, after), drop(before, after, comparisons=10)
    assert of_many.share == one.share
    assert of_many.ci95[0] < one.ci95[0] < one.ci95[1] < of_many.ci95[1]
    assert one.smallest is not None
    assert of_many.smallest is not None
    assert of_many.smallest > one.smallest


@pytest.mark.parametrize("count", [20, 60, 400])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_the_interval_of_a_share_covers_it(count: int, share: float) -> None:
    random = np.random.default_rng(1)
    low, high = wilson(random.binomial(count, share, ROUNDS), count)
    covered = float(np.mean((low <= share) & (share <= high)))
    assert covered > 0.925  # Wilson's coverage is 95 % on average over the shares, not for each


@pytest.mark.parametrize("count", [30, 150, 900])
@pytest.mark.parametrize(
    "cells",
    [
        (0.90, 0.03, 0.01, 0.06),  # a small drop of a good model
        (0.94, 0.02, 0.02, 0.02),  # none
        (0.60, 0.20, 0.05, 0.15),
        (0.30, 0.30, 0.30, 0.10),  # answers that have little to do with each other
    ],
)
def test_the_interval_of_a_drop_covers_it(count: int, cells: tuple[float, ...]) -> None:
    random = np.random.default_rng(2)
    low, high = newcombe(*random.multinomial(count, cells, ROUNDS).T)
    truth = cells[1] - cells[2]
    assert float(np.mean((low <= truth) & (truth <= high))) > 0.93


def test_the_interval_of_the_worst_of_many_covers_it_only_with_the_choice_counted() -> None:
    # Twelve classes of 600 samples with the same true drop; the one that seems worst is chosen.
    random = np.random.default_rng(4)
    classes, truth = 12, 0.02
    counts = random.multinomial(600, (0.84, 0.05, 0.03, 0.08), (ROUNDS // 4, classes))
    worst = np.argmax(counts[..., 1] - counts[..., 2], axis=1)
    cells = counts[np.arange(len(worst)), worst].T
    covered = {}
    for comparisons in (1, classes):
        low, high = newcombe(*cells, z=z_of(comparisons))
        covered[comparisons] = float(np.mean((low <= truth) & (truth <= high)))
    assert covered[1] < 0.85  # 0.975 ** 12 would be 0.74
    assert covered[classes] > 0.95


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_intervals_hold_their_estimate_and_mirror(pairs: list[tuple[bool, bool]]) -> None:
    before, after = np.array(pairs).T
    low, high = share_ci95(after)
    assert 0 <= low <= after.mean() <= high <= 1
    forth, back = drop(before, after), drop(after, before)
    assert -1 <= forth.ci95[0] <= forth.share + 1e-12
    assert forth.share - 1e-12 <= forth.ci95[1] <= 1
    assert (forth.ci95[0], forth.ci95[1]) == pytest.approx((-back.ci95[1], -back.ci95[0]))


@settings(max_examples=30)
@given(count=st.integers(1, 80), share=st.floats(0, 1))
def test_the_smallest_drop_is_the_smallest_that_is_shown(count: int, share: float) -> None:
    right = int(share * count)
    smallest = smallest_drop(right, count)
    before = np.arange(count) < right
    for lost in range(right + 1):
        shown = drop(before, np.arange(count) < right - lost).ci95[0] > 0
        assert shown == (smallest is not None and lost / count >= smallest - 1e-12)


def test_few_samples_show_large_drops_only() -> None:
    assert smallest_drop(0, 5) is None
    assert smallest_drop(3, 3) == 1.0
    few, many = smallest_drop(57, 60), smallest_drop(855, 900)
    assert few is not None
    assert many is not None
    assert 0.05 < few < 0.15
    assert 0.003 < many < 0.01


@given(st.floats(0.004, 1))
def test_the_samples_that_a_drop_needs_are_the_fewest_that_show_it(share: float) -> None:
    def shown(count: int) -> bool:
        smallest = smallest_drop(count, count)
        return smallest is not None and smallest <= share + 1e-9

    needed = samples_needed(share)
    assert needed is not None
    assert shown(needed)
    assert not any(shown(count) for count in range(1, needed))


def test_the_samples_for_common_drops() -> None:
    assert [samples_needed(share) for share in (0.05, 0.02, 0.01, 0.005)] == [100, 250, 500, 1000]
    assert samples_needed(0) is None
