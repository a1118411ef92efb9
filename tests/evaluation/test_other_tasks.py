"""Figures of multi-label models, regressions, anomaly scores and segmentations, calculated by hand."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from edgeq.blueprint import Task
from edgeq.errors import DataError, UsageError
from edgeq.evaluation.anomaly import anomaly_of, reconstruction_error, weighted_auc
from edgeq.evaluation.by_task import TaskFigures, figures_of
from edgeq.evaluation.multi_label import LabelScore, multi_label_of
from edgeq.evaluation.regression import regression_of
from edgeq.evaluation.segmentation import segmentation_of

TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
BETTER = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.2, 0.9, 0.1], [0.1, 0.2, 0.3]])
WORSE = np.array([[0.9, 0.6, 0.2], [0.4, 0.7, 0.1], [0.5, 0.9, 0.1], [0.1, 0.2, 0.3]])


def test_f1_and_average_precision_of_each_label() -> None:
    figures = multi_label_of(BETTER, WORSE, TRUTH, names=["dog", "cat", "cow"])
    assert figures.threshold == 0.5
    dog, cat, cow = figures.of_each
    assert (dog.name, dog.support) == ("dog", 2)
    assert dog.reference == LabelScore(f1=1.0, average_precision=1.0)
    # One of two dogs is lost and one is invented; the second dog comes third.
    assert astuple(dog.variant) == pytest.approx((0.5, (1 + 2 / 3) / 2))  # F1, average precision
    assert astuple(cat.variant) == pytest.approx((0.8, 1.0))
    assert cow.variant == LabelScore(f1=None, average_precision=None)
    assert figures.reference_micro_f1 == 1.0
    assert figures.micro_f1 == pytest.approx(2 * 3 / (2 * 3 + 3))
    assert figures.macro_f1 == pytest.approx((0.5 + 0.8) / 2)
    assert figures.mean_average_precision == pytest.approx((5 / 6 + 1) / 2)
    assert figures.micro_f1_drop == pytest.approx(1 / 3)
    # Each sample with a label has one hit and one miss: every resample has the same drop.
    assert figures.micro_f1_drop_ci95 == pytest.approx((1 / 3, 1 / 3))


def test_logits_of_labels_have_the_threshold_zero() -> None:
    logits = np.log(BETTER / (1 - BETTER))
    figures = multi_label_of(logits, logits, TRUTH, independent=False)
    assert figures.threshold == 0.0
    assert figures.micro_f1 == 1.0
    assert figures.micro_f1_drop_ci95 is None


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 1)] * 4), min_size=1, max_size=30))
def test_micro_f1_is_scikit_learn_s(samples: list[tuple[int, int, int, int]]) -> None:
    both = np.array(samples)
    truth, output = both[:, :2], both[:, 2:].astype(np.float64)
    figures = multi_label_of(output, output, truth, independent=False)
    if truth.any() or output.any():
        assert figures.micro_f1 == pytest.approx(f1_score(truth, output, average="micro"))
    else:
        assert figures.micro_f1 is None
    assert figures.micro_f1_drop in (0.0, None)


def test_errors_of_a_regression() -> None:
    labels = np.array([[0.0], [2.0], [4.0]])
    errors = np.array([[1.0], [-1.0], [1.0]])
    figures = regression_of(labels + errors, labels + np.array([[1], [-1], [4]]), labels)
    assert figures.reference.mae == 1.0
    assert figures.reference.rmse == 1.0
    assert figures.reference.largest_error == 1.0
    assert figures.reference.r2 == pytest.approx(1 - 3 / 8)
    assert figures.variant.mae == 2.0
    assert figures.variant.rmse == pytest.approx(math.sqrt(6))
    assert figures.variant.largest_error == 4.0
    assert figures.mae_increase == 1.0
    assert figures.rmse_increase == pytest.approx(math.sqrt(6) - 1)
    # The resamples have the third sample 0 to 3 times.
    assert figures.mae_increase_ci95 == (0.0, 3.0)
    assert figures.rmse_increase_ci95 == pytest.approx((0.0, 3.0))


def test_labels_that_do_not_vary_have_no_r_squared() -> None:
    labels = np.full((4, 1), 3.0)
    figures = regression_of(labels, labels + 1, labels, independent=False)
    assert figures.variant.r2 is None
    assert figures.mae_increase_ci95 is None


@pytest.mark.slow
def test_the_interval_of_an_increase_covers_it() -> None:
    # The true increase of the mean absolute error is 0.1; 200 data sets of 80 samples.
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        error = np.abs(rng.normal(1, 0.3, (80, 1)))
        labels = np.zeros((80, 1))
        figures = regression_of(error, error + rng.normal(0.1, 0.2, (80, 1)), labels, seed=seed)
        assert figures.mae_increase_ci95 is not None
        covered += figures.mae_increase_ci95[0] <= 0.1 <= figures.mae_increase_ci95[1]
    assert 0.89 <= covered / 200 <= 0.99


def test_areas_of_anomaly_scores() -> None:
    labels = np.array([0, 0, 1, 1])
    figures = anomaly_of(
        np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.35, 0.3, 0.4]), labels, score="the output"
    )
    assert figures.anomalies == 2
    assert (figures.reference.auc, figures.reference.average_precision) == (1.0, 1.0)
    assert figures.variant.auc == 0.75  # three of four pairs
    assert figures.variant.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert figures.auc_drop == 0.25
    assert figures.auc_drop_ci95 is not None
    assert figures.auc_drop_ci95[0] <= 0.25 <= figures.auc_drop_ci95[1]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40))
def test_the_area_of_a_resample_is_scikit_learn_s(samples: list[tuple[int, bool, int]]) -> None:
    scores, labels, counts = (np.array(each) for each in zip(*samples, strict=True))
    (area,) = weighted_auc(scores.astype(np.float64), labels, counts[None].astype(np.float64))
    drawn = np.repeat(np.arange(len(scores)), counts)
    if len(set(labels[drawn])) < 2:
        assert np.isnan(area)
    else:
        assert area == pytest.approx(roc_auc_score(labels[drawn], scores[drawn]))


def test_the_error_of_a_reconstruction() -> None:
    inputs = np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32)
    assert reconstruction_error(np.array([[1.0, 4.0], [3.0, 4.0]]), inputs).tolist() == [2.0, 0.0]


def test_overlap_of_each_class() -> None:
    labels = np.array([[[0, 0], [1, 1]], [[0, 255], [1, 2]]])
    better = np.array([[[0, 0], [1, 1]], [[0, 2], [1, 1]]])
    worse = np.array([[[0, 1], [1, 1]], [[0, 2], [0, 1]]])
    figures = segmentation_of(better, worse, labels, classes=4, names=["a", "b", "c", "d"])
    assert figures.ignored == 1
    assert [each.pixels for each in figures.of_each] == [3, 3, 1, 0]
    assert [each.reference for each in figures.of_each] == pytest.approx([1.0, 3 / 4, 0.0, None])
    assert [each.variant for each in figures.of_each] == pytest.approx([2 / 4, 2 / 5, 0.0, None])
    assert figures.of_each[1].delta == pytest.approx(2 / 5 - 3 / 4)
    assert figures.mean_iou == pytest.approx((0.5 + 0.4) / 3)
    assert figures.mean_iou_drop == pytest.approx((1.75 - 0.9) / 3)
    assert (figures.reference_pixel_accuracy, figures.pixel_accuracy) == pytest.approx((6 / 7, 4 / 7))
    assert figures.mean_iou_drop_ci95 is not None


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=40))
def test_overlaps_are_scikit_learn_s(pixels: list[tuple[int, int, int]]) -> None:
    labels, one, other = (np.array(each)[None] for each in zip(*pixels, strict=True))
    figures = segmentation_of(one, other, labels, classes=3, independent=False)
    for model, answers in (("reference", one), ("variant", other)):
        expected = jaccard_score(labels[0], answers[0], labels=[0, 1, 2], average=None, zero_division=0)
        got = [getattr(each, model) for each in figures.of_each]
        assert [each or 0.0 for each in got] == pytest.approx(list(expected))
        present = [bool((labels == i).any() or (answers == i).any()) for i in range(3)]
        assert [each is not None for each in got] == present


def figures(task: Task, output: npt.ArrayLike, labels: npt.ArrayLike | None, **given: Any) -> TaskFigures:
    values = np.asarray(output, np.float64)
    own = None if labels is None else np.asarray(labels)
    inputs = given.pop("inputs", np.zeros((len(values), 3)))
    return figures_of(task, values, values, own, inputs=inputs, subject="e.npz", **given)


def test_a_task_gets_its_own_figures_only() -> None:
    result = figures(Task.REGRESSION, [[1.0], [2.0]], [1.5, 2.5])
    assert result.regression is not None
    assert (result.classes, result.multi_label, result.anomaly, result.segmentation) == (None,) * 4
    assert figures(Task.MULTI_LABEL, BETTER, TRUTH).multi_label is not None
    assert figures(Task.ANOMALY, [[1.0], [2.0]], [0, 1]).anomaly is not None
    rebuilt = figures(Task.ANOMALY, np.ones((2, 3)), [[0], [1]]).anomaly
    assert rebuilt is not None
    assert rebuilt.score == "mean squared error of the reconstruction"
    mask = figures(Task.SEGMENTATION, np.eye(2)[None], np.eye(2, dtype=int)[None]).segmentation
    assert mask is not None
    assert mask.mean_iou == 1.0
    classes = figures(Task.CLASSIFICATION, [[0.9, 0.1], [0.2, 0.8]], [0, 1])
    assert classes.classes is not None
    assert classes.probabilities is not None


def test_what_is_missing_is_said() -> None:
    assert figures(Task.REGRESSION, [[1.0]], None).notes == ("no figures of regression: the data has no `y`",)
    assert "boxes and scores of both models" in figures(Task.DETECTION, [[1.0]], [1.0]).notes[0]
    assert "every `y` is 1" in figures(Task.ANOMALY, [[1.0], [2.0]], [1, 1]).notes[0]
    assert (
        "every `y` is 255"
        in figures(Task.SEGMENTATION, np.zeros((1, 2, 2, 3)), np.full((1, 2, 2), 255)).notes[0]
    )
    assert "variant" not in figures(Task.REGRESSION, [[np.nan]], [1.0]).warnings[0]
    broken = figures_of(
        Task.REGRESSION, np.zeros((2, 1)), np.full((2, 1), np.inf), np.zeros(2), inputs=np.zeros((2, 1))
    )
    assert broken.warnings == ("no figures of regression: the output of the variant holds NaN or infinity",)
    classes = figures(Task.CLASSIFICATION, [[np.nan, 0.1], [0.2, 0.8]], [0, 1])
    assert classes.probabilities is None
    assert "holds NaN" in classes.warnings[0]


@pytest.mark.parametrize(
    ("task", "output", "labels", "code", "words"),
    [
        (Task.REGRESSION, np.zeros((4, 2)), np.zeros((4, 3)), "EQ206", ["(4, 2)", "(4, 3)"]),
        (Task.MULTI_LABEL, np.zeros((4, 2)), np.full((4, 2), 2), "EQ208", ["0 or 1", "got 2"]),
        (Task.MULTI_LABEL, np.zeros((4, 2)), np.zeros(4), "EQ206", ["(4, 2)", "(4,)"]),
        (Task.ANOMALY, np.zeros((4, 2)), np.zeros(4), "EQ206", ["one number", "(2,)", "(3,)"]),
        (Task.ANOMALY, np.zeros((4, 1)), np.full(4, 0.5), "EQ208", ["0 or 1", "0.5"]),
        (Task.SEGMENTATION, np.zeros((4, 2)), np.zeros(4), "EQ206", ["(height, width, classes)"]),
        (Task.SEGMENTATION, np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 3)), "EQ206", ["(1, 2, 2)"]),
        (Task.SEGMENTATION, np.zeros((1, 2, 2, 3)), np.full((1, 2, 2), 0.5), "EQ207", ["whole", "0.5"]),
        (Task.SEGMENTATION, np.zeros((1, 2, 2, 3)), np.full((1, 2, 2), 3), "EQ208", ["0 to 2", "4 such"]),
    ],
)
def test_labels_that_do_not_fit_the_task(
    task: Task, output: npt.NDArray[Any], labels: npt.NDArray[Any], code: str, words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        figures(task, output, labels)
    assert caught.value.reported_code == code
    for word in ("e.npz", *words):
        assert word in caught.value.message


def test_names_must_be_as_many_as_classes() -> None:
    with pytest.raises(UsageError, match="expected 2 names, one a class, got 3"):
        figures(Task.CLASSIFICATION, [[0.9, 0.1]], [0], names=["a", "b", "c"])
    with pytest.raises(UsageError, match="expected 3 names, one a label, got 1"):
        figures(Task.MULTI_LABEL, BETTER, TRUTH, names=["a"])
