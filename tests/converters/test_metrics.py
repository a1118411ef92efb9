"""SQNR and softmax, against values worked out by hand and the laws that they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq_converters.metrics import (
    MOST_SLICES,
    decibels,
    output_sqnr,
    softmax,
    sqnr_db,
    useless_result,
)

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


def boxes_and_scores(*, scores: float = 1.0) -> np.ndarray:
    """Return (50 samples, 6 anchors, 5 columns): four columns up to 640, and one up to `scores`."""
    random = np.random.default_rng(0)
    return np.concatenate(
        [random.uniform(0, 640, (50, 6, 4)), random.uniform(0, scores, (50, 6, 1))], axis=-1
    )


def test_one_figure_hides_what_the_slices_show() -> None:
    reference = boxes_and_scores()
    rounded = np.round(reference / 2.5) * 2.5
    figure = output_sqnr("out", rounded, reference)
    assert figure.sqnr_db is not None
    assert figure.sqnr_db > 45
    assert (figure.slices, figure.worst_slice) == (5, 4)
    assert figure.worst_slice_db == pytest.approx(0.0, abs=1e-6)
    assert figure.worst_db == figure.worst_slice_db
    assert figure.dead == (4,)
    reason = useless_result([rounded], [reference], None)
    assert reason is not None
    assert "1 of 5 slices" in reason


def test_slices_with_steps_of_their_own_are_alive() -> None:
    reference = boxes_and_scores()
    steps = np.array([2.5, 2.5, 2.5, 2.5, 1 / 255])
    figure = output_sqnr("out", np.round(reference / steps) * steps, reference)
    assert figure.dead == ()
    assert figure.worst_db > 40
    assert useless_result([np.round(reference / steps) * steps], [reference], None) is None


def test_a_slice_that_hardly_varies_is_not_called_dead() -> None:
    reference = boxes_and_scores()
    reference[..., 4] = 1 + reference[..., 4] * 1e-3
    rounded = reference.copy()
    rounded[..., 4] = 1.0
    assert output_sqnr("out", rounded, reference).dead == ()


@pytest.mark.parametrize("shape", [(50, 5), (50, 6, 1), (50, 6, MOST_SLICES + 1), (50,)])
def test_other_outputs_count_as_a_whole(shape: tuple[int, ...]) -> None:
    reference = np.random.default_rng(1).normal(size=shape)
    figure = output_sqnr("out", reference + 0.1, reference)
    assert (figure.slices, figure.worst_slice) == (0, None)
    assert figure.worst_db == figure.sqnr_db == pytest.approx(sqnr_db([reference + 0.1], [reference]))


def test_an_equal_output_has_no_ratio() -> None:
    reference = boxes_and_scores()
    figure = output_sqnr("out", reference, reference)
    assert (figure.sqnr_db, figure.worst_slice, figure.worst_db) == (None, None, math.inf)
