"""Figures of classes, calculated by hand, and beside scikit-learn's."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.evaluation.classes import ClassScore, classes_of, difference_of
from edgeq_converters import intervals

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
FLOAT = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 2])
VARIANT = np.array([0, 0, 1, 1, 1, 1, 1, 0, 2, 1])


def rows(answers: npt.NDArray[np.int64], classes: int = 3) -> npt.NDArray[np.float64]:
    """Return an output whose largest values are at the answers."""
    return np.eye(classes)[answers]


def test_precision_recall_and_f1_of_each_class() -> None:
    figures = classes_of(rows(FLOAT), rows(VARIANT), LABELS, names=["yes", "no", "noise"])
    assert (figures.reference_accuracy, figures.accuracy) == (0.9, 0.6)
    assert [each.name for each in figures.of_each] == ["yes", "no", "noise"]
    assert [each.support for each in figures.of_each] == [4, 4, 2]
    first = figures.of_each[0]
    assert astuple(first.reference) == pytest.approx((1.0, 0.75, 6 / 7))  # precision, recall, F1
    assert astuple(first.variant) == pytest.approx((2 / 3, 0.5, 4 / 7))
    assert first.recall_delta == -0.25
    assert first.precision_delta == pytest.approx(-1 / 3)
    assert first.f1_delta == pytest.approx(-2 / 7)
    assert figures.macro_f1 == pytest.approx((4 / 7 + 0.6 + 2 / 3) / 3)


def test_the_confusion_matrix_has_a_row_for_each_label() -> None:
    figures = classes_of(rows(FLOAT), rows(VARIANT), LABELS)
    assert figures.reference_confusion == ((3, 1, 0), (0, 4, 0), (0, 0, 2))
    assert figures.confusion == ((2, 2, 0), (1, 3, 0), (0, 1, 1))


def test_no_matrix_is_kept_for_many_classes() -> None:
    answers = np.arange(101)
    figures = classes_of(rows(answers, 101), rows(answers, 101), answers)
    assert figures.confusion is None
    assert len(figures.of_each) == 101


def test_a_class_without_samples_has_no_recall_and_without_answers_no_precision() -> None:
    labels = np.array([0, 0, 1, 1])
    figures = classes_of(rows(labels), rows(np.array([0, 0, 0, 0])), labels)
    assert figures.of_each[1].variant == ClassScore(precision=None, recall=0.0, f1=0.0)
    assert figures.of_each[1].precision_delta is None
    assert figures.of_each[2].variant == ClassScore(precision=None, recall=None, f1=None)
    assert figures.worst.compared == 2


def test_the_class_that_loses_most_has_an_interval_for_the_choice_among_all() -> None:
    worst = classes_of(rows(FLOAT), rows(VARIANT), LABELS).worst
    assert (worst.index, worst.support, worst.drop, worst.compared) == (2, 2, 0.5, 3)
    plain = intervals.drop(np.array([True, True]), np.array([True, False])).ci95
    assert worst.drop_ci95 is not None
    assert worst.drop_ci95[0] < plain[0] < 0.5 < plain[1] < worst.drop_ci95[1]
    low, high = intervals.newcombe(1, 1, 0, 0, z=2.3939797998185104)  # the quantile of 1 - 0.025 / 3
    assert worst.drop_ci95 == pytest.approx((float(low), float(high)))


def test_of_equal_drops_the_one_on_more_samples_counts() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    worst = classes_of(rows(labels), rows(np.array([0, 1, 1, 1, 0, 0])), labels).worst
    assert (worst.index, worst.drop) == (1, 0.5)


def test_top_k_goes_as_far_as_there_are_classes() -> None:
    # The label is the first, second and third largest value.
    output = np.array([[0.5, 0.3, 0.1, 0.1], [0.5, 0.3, 0.1, 0.1], [0.5, 0.3, 0.2, 0.0]])
    labels = np.array([0, 1, 2])
    figures = classes_of(output, np.zeros((3, 4)), labels)
    assert [each.k for each in figures.top] == [1, 2, 3]
    assert [each.reference for each in figures.top] == pytest.approx([1 / 3, 2 / 3, 1.0])
    # Of equal values the first ones count, as for the accuracy.
    assert [each.variant for each in figures.top] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert [each.k for each in classes_of(rows(LABELS, 9), rows(LABELS, 9), LABELS).top] == [1, 2, 3, 5]


def test_mcnemar_s_exact_test_counts_what_changed() -> None:
    change = difference_of(FLOAT == LABELS, VARIANT == LABELS)
    assert (change.lost, change.gained) == (3, 0)
    assert change.p_value == pytest.approx(0.25)  # 2 * (1/2)^3
    assert change.drop == pytest.approx(0.3)
    assert change.drop_ci95 is not None
    assert change.drop_ci95[0] < 0.3 < change.drop_ci95[1]
    assert difference_of(FLOAT == LABELS, FLOAT == LABELS).p_value == 1.0


def test_samples_that_depend_on_each_other_get_no_interval() -> None:
    figures = classes_of(rows(FLOAT), rows(VARIANT), LABELS, independent=False)
    assert figures.worst.drop_ci95 is None
    assert figures.worst.smallest_drop is None
    assert (figures.difference.drop_ci95, figures.difference.p_value) == (None, None)
    assert {each.drop_ci95 for each in figures.top} == {None}


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=60))
def test_the_figures_agree_with_each_other(samples: list[tuple[int, int, int]]) -> None:
    labels, before, after = (np.array(each) for each in zip(*samples, strict=True))
    figures = classes_of(rows(before, 4), rows(after, 4), labels)
    assert figures.top[0].variant == pytest.approx(figures.accuracy)
    assert figures.difference.drop == pytest.approx(figures.reference_accuracy - figures.accuracy)
    assert figures.confusion is not None
    assert sum(figures.confusion[i][i] for i in range(4)) == round(figures.accuracy * len(labels))
    deltas = [-each.recall_delta for each in figures.of_each if each.recall_delta is not None]
    assert figures.worst.drop == pytest.approx(max(deltas))
    weighted = [each.support * (each.variant.recall or 0.0) for each in figures.of_each]
    assert sum(weighted) == pytest.approx(figures.accuracy * len(labels))
