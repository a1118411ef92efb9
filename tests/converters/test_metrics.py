"""SQNR and softmax, against values worked out by hand and the laws that they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq_converters.metrics import decibels, softmax, sqnr_db

SCORES = arrays(np.float64, (7, 3), elements=st.floats(-100, 100))


def test_sqnr_is_the_ratio_of_summed_powers_over_all_outputs() -> None:
    one, two = np.ones((2, 1)), np.full((2, 2), 3.0)
    assert sqnr_db([one + 1, two], [one, two]) == pytest.approx(10 * math.log10((2 + 36) / 2))


def test_sqnr_is_infinite_without_noise_and_minus_infinite_without_signal() -> None:
    assert sqnr_db([np.ones((2, 2))], [np.ones((2, 2))]) == math.inf
    assert sqnr_db([np.ones((2, 2))], [np.zeros((2, 2))]) == -math.inf
    assert decibels(0.0, 0.0) == math.inf


def test_sqnr_sums_in_double_precision() -> None:
    reference = np.full(1 << 20, 4097.0, np.float32)  # its square has more bits than float32
    assert sqnr_db([reference - 1], [reference]) == pytest.approx(20 * math.log10(4097), abs=1e-9)


def test_outputs_and_references_pair_up() -> None:
    with pytest.raises(ValueError, match="longer"):
        sqnr_db([np.ones(2)], [np.ones(2), np.ones(2)])


@given(SCORES, st.floats(0.01, 100))
def test_sqnr_does_not_depend_on_the_unit(reference: np.ndarray, factor: float) -> None:
    output = reference + np.linspace(0.1, 1, 21).reshape(7, 3)
    assume(np.square(reference).sum() > 1)
    assert sqnr_db([output * factor], [reference * factor]) == pytest.approx(sqnr_db([output], [reference]))


@given(SCORES, st.floats(-1000, 1000))
def test_softmax_gives_probabilities_that_a_common_shift_leaves_alone(
    scores: np.ndarray, shift: float
) -> None:
    probabilities = softmax(scores)
    assert probabilities.sum(axis=-1) == pytest.approx(np.ones(7))
    assert (probabilities >= 0).all()
    assert softmax(scores + shift) == pytest.approx(probabilities, abs=1e-9)


def test_softmax_keeps_the_ratio_of_two_classes() -> None:
    probabilities = softmax(np.array([[0.0, math.log(3.0)], [1000.0, 1000.0]]))
    assert probabilities.tolist() == [pytest.approx([0.25, 0.75]), [0.5, 0.5]]
