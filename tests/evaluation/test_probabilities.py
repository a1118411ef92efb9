"""Calibration figures, calculated by hand, and beside scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from edgeq.evaluation.probabilities import (
    BINS,
    Scores,
    as_probabilities,
    calibration_of,
    probabilities_of,
    scores_of,
)

SHARES = np.array([[0.9, 0.1], [0.9, 0.1], [0.61, 0.39], [0.61, 0.39]])
LABELS = np.array([0, 1, 0, 0])


def test_the_errors_of_four_samples() -> None:
    figures = calibration_of(SHARES, LABELS)
    # Half of the samples are 0.4 too sure, half are 0.39 too unsure.
    assert figures.ece == pytest.approx(0.5 * 0.4 + 0.5 * 0.39)
    assert figures.brier == pytest.approx((0.02 + 1.62 + 2 * 2 * 0.39**2) / 4)
    assert figures.nll == pytest.approx(-(math.log(0.9) + math.log(0.1) + 2 * math.log(0.61)) / 4)
    filled = [each for each in figures.bins if each.samples]
    assert [(each.samples, each.accuracy) for each in filled] == [(2, 1.0), (2, 0.5)]
    assert [each.confidence for each in filled] == pytest.approx([0.61, 0.9])
    assert len(figures.bins) == BINS
    assert (figures.bins[0].low, figures.bins[-1].high) == (0.0, 1.0)
    assert figures.bins[0].confidence is None
    assert figures.ece_ci95 is None


def test_sure_and_right_has_no_error() -> None:
    figures = calibration_of(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))
    assert (figures.ece, figures.ece_adaptive, figures.brier, figures.nll) == (0, 0, 0, 0)


def test_the_adaptive_error_separates_what_one_wide_bin_mixes() -> None:
    # Confidences 0.94 to 0.99 share a bin; the third that is less sure is right, the others are wrong.
    confidence = np.concatenate([np.linspace(0.941, 0.95, 20), np.linspace(0.98, 0.99, 40)])
    shares = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0] * 20 + [1] * 40)
    figures = calibration_of(shares, labels)
    assert figures.ece == pytest.approx(confidence.mean() - 1 / 3)
    assert figures.ece_adaptive == pytest.approx(((1 - confidence[:20]).sum() + confidence[20:].sum()) / 60)


def test_logits_are_recognized_and_get_a_softmax() -> None:
    logits = np.array([[2.0, 1.0], [0.5, -1.0]])
    assert scores_of(logits) is Scores.LOGITS
    assert scores_of(SHARES) is Scores.PROBABILITIES
    assert scores_of(np.array([[0.5, 0.4]])) is Scores.LOGITS
    assert scores_of(np.array([[1.1, -0.1]])) is Scores.LOGITS
    expected = 1 / (1 + math.exp(-1.0))
    assert as_probabilities(logits, Scores.LOGITS)[0, 0] == pytest.approx(expected)
    figures = probabilities_of(logits, logits, np.array([0, 1]))
    assert figures is not None
    assert figures.scores is Scores.LOGITS
    assert figures.reference == figures.variant


def test_the_float_model_decides_what_a_quantized_output_holds() -> None:
    quantized = np.array([[0.9, 0.0], [0.95, 0.0], [0.6, 0.4], [0.6, 0.4]])  # sums far from 1
    figures = probabilities_of(SHARES, quantized, LABELS, step=1 / 256)
    assert figures is not None
    assert figures.scores is Scores.PROBABILITIES
    assert figures.floor == 1 / 512
    # A probability of 0 counts as half a step.
    expected = -(math.log(0.9) + math.log(1 / 512) + 2 * math.log(0.6)) / 4
    assert figures.variant.nll == pytest.approx(expected)
    assert figures.variant.ece_ci95 is not None


def test_no_figures_without_finite_values() -> None:
    assert probabilities_of(SHARES, np.full((4, 2), np.nan), LABELS) is None


def test_the_interval_holds_the_error_and_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 1, 300)
    shares = np.stack([first, 1 - first], axis=1)
    labels = (rng.random(300) > first).astype(int)
    figures = calibration_of(shares, labels, seed=1)
    assert figures.ece_ci95 is not None
    assert figures.ece_ci95[0] < figures.ece_ci95[1]
    assert calibration_of(shares, labels, seed=1) == figures
    assert calibration_of(shares, labels, seed=2).ece_ci95 != figures.ece_ci95


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.001, 0.999), st.integers(0, 1)), min_size=2, max_size=60).filter(
        lambda samples: len({label for _, label in samples}) == 2
    )
)
def test_two_classes_have_scikit_learn_s_figures(samples: list[tuple[float, int]]) -> None:
    first = np.array([share for share, _ in samples])
    labels = np.array([label for _, label in samples])
    shares = np.stack([first, 1 - first], axis=1)
    figures = calibration_of(shares, labels)
    assert figures.brier == pytest.approx(2 * brier_score_loss(labels, shares[:, 1]))
    assert figures.nll == pytest.approx(log_loss(labels, shares))
    right = shares.argmax(axis=1) == labels
    if 0 < right.sum() < len(right):
        accuracy, confidence = calibration_curve(right, shares.max(axis=1), n_bins=BINS)
        filled = [each for each in figures.bins if each.samples]
        assert [each.accuracy for each in filled] == pytest.approx(list(accuracy))
        assert [each.confidence for each in filled] == pytest.approx(list(confidence))
