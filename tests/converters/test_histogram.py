"""The histogram does not know in which order or batches its values came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq_converters.calibration.calibrators import calibrator_of
from edgeq_converters.calibration.histogram import Observer, histogram_of

# Without subnormals: libraries that this process may have loaded turn them into zero.
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
VALUES = arrays(np.float32, st.integers(1, 200), elements=FLOATS)


@given(VALUES, st.randoms(use_true_random=False))
def test_order_does_not_matter(values: np.ndarray, random: object) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert histogram_of(shuffled) == histogram_of(values)


@given(VALUES, st.integers(1, 50))
def test_batches_do_not_matter(values: np.ndarray, size: int) -> None:
    observer = Observer()
    for start in range(0, len(values), size):
        observer.add(values[start : start + size])
    assert observer.histogram() == histogram_of(values)


@pytest.mark.slow
@given(VALUES, VALUES, VALUES)
def test_merging_is_one_pass_over_all(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    whole = histogram_of(np.concatenate([a, b, c]))
    assert histogram_of(a).merge(histogram_of(b)).merge(histogram_of(c)) == whole
    assert histogram_of(c).merge(histogram_of(b).merge(histogram_of(a))) == whole


@given(VALUES)
def test_extremes_are_exact_and_every_value_is_counted(values: np.ndarray) -> None:
    histogram = histogram_of(values)
    assert (histogram.minimum, histogram.maximum) == (float(values.min()), float(values.max()))
    assert histogram.total == len(values)
    assert calibrator_of("minmax")(histogram) == (float(values.min()), float(values.max()))


@given(arrays(np.float32, st.integers(1, 100), elements=st.floats(0.0625, 4096, width=32)))
def test_a_bin_is_at_most_one_part_in_128_wide(values: np.ndarray) -> None:
    starts, counts = histogram_of(values).occupied()
    assert np.all(np.diff(starts) > 0)
    spread = np.repeat(starts, counts)
    ordered = np.sort(values)
    assert np.all(spread <= ordered)
    assert np.all(ordered < spread * (1 + 1 / 128) * 1.000001)


def test_large_and_small_chunks_count_alike() -> None:
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    observer = Observer()
    for value in values.reshape(100, -1):
        observer.add(value)
    assert observer.histogram() == histogram_of(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_separately(bad: float) -> None:
    histogram = histogram_of([1.0, bad, -2.0])
    assert (histogram.minimum, histogram.maximum, histogram.invalid, histogram.total) == (-2.0, 1.0, 1, 2)


def test_both_zeros_are_one_value() -> None:
    assert histogram_of([0.0]) == histogram_of([-0.0])


def test_a_difference_is_seen() -> None:
    assert histogram_of([1.0, 2.0]) != histogram_of([1.0, 2.5])
    assert histogram_of([1.0, 1.0, 2.0]) != histogram_of([1.0, 2.0, 2.0])
