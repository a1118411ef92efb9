"""The figures of an evaluation, against values computed by hand and invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.evaluation import TensorInfo, dequantized
from edgeq.evaluation.evaluation import accuracy, metrics_of, predicted

OUTPUTS = arrays(np.float64, (7, 3), elements=st.floats(-100, 100))


def test_accuracy_and_agreement_count_the_largest_outputs() -> None:
    reference = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    output = np.array([[0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    assert predicted(output).tolist() == [1, 1, 1, 0]
    assert accuracy(output, np.array([1, 0, 1, 0])) == 0.75
    assert metrics_of([output], [reference], None).agreement == 0.75


@given(OUTPUTS)
def test_a_model_agrees_with_itself(output: np.ndarray) -> None:
    assert metrics_of([output], [output], predicted(output)).agreement == 1
    assert accuracy(output, predicted(output)) == 1


def test_shares_have_intervals_and_a_drop_is_paired() -> None:
    labels = np.arange(40) % 3
    reference = np.eye(3)[labels]
    output = reference.copy()
    output[:4] = np.roll(output[:4], 1, axis=1)  # four samples become wrong
    metrics = metrics_of([output], [reference], labels)
    assert (metrics.accuracy, metrics.agreement, metrics.accuracy_drop) == (0.9, 0.9, 0.1)
    assert metrics.accuracy_ci95 == metrics.agreement_ci95
    assert metrics.accuracy_ci95 is not None
    assert metrics.accuracy_ci95 == pytest.approx((0.7695, 0.9604), abs=1e-4)
    assert metrics.drop_is_shown == (metrics.smallest_drop is not None and metrics.smallest_drop <= 0.1)
    same = metrics_of([reference], [reference], labels)
    assert same.accuracy_drop == 0
    assert not same.drop_is_shown
    assert same.smallest_drop == metrics.smallest_drop


def test_what_is_not_measured_has_no_interval() -> None:
    output = np.eye(3)[np.arange(30) % 3]
    alone = metrics_of([output], None, None)
    assert (alone.accuracy, alone.accuracy_ci95, alone.agreement_ci95, alone.smallest_drop) == (None,) * 4
    unlabelled = metrics_of([output], [output], None)
    assert unlabelled.agreement_ci95 is not None
    assert (unlabelled.accuracy_drop, unlabelled.accuracy_drop_ci95) == (None, None)
    # Samples of one sequence are not independent of each other.
    sequence = metrics_of([output], [output], np.arange(30) % 3, independent=False)
    assert (sequence.accuracy, sequence.agreement, sequence.accuracy_drop) == (1, 1, 0)
    assert (sequence.accuracy_ci95, sequence.agreement_ci95, sequence.accuracy_drop_ci95) == (None,) * 3


def test_quantized_outputs_become_real_values() -> None:
    quantized = TensorInfo(name="p", shape=(1, 2), dtype="int8", scale=0.5, zero_point=-128)
    plain = TensorInfo(name="q", shape=(1, 1), dtype="float32")
    real = dequantized([np.array([[-128, 127]], np.int8), np.array([[2.5]], np.float32)], [quantized, plain])
    assert real[0].tolist() == [[0.0, 127.5]]
    assert real[1].tolist() == [[2.5]]


def test_limits_judge_the_worst_slice_of_the_worst_output() -> None:
    random = np.random.default_rng(0)
    whole, parts = random.normal(size=(30, 4)), random.normal(size=(30, 5, 3)) * [100.0, 100.0, 1.0]
    metrics = metrics_of([whole + 1e-3, parts + 0.1], [whole, parts], None, names=["classes", "boxes"])
    classes, boxes = metrics.outputs
    assert (classes.name, classes.slices, boxes.name, boxes.slices) == ("classes", 0, "boxes", 3)
    assert boxes.worst_slice == 2
    assert boxes.worst_slice_db == pytest.approx(20.0, abs=1.0)
    assert metrics.worst_sqnr_db == boxes.worst_slice_db
    assert metrics.output_sqnr_db is not None
    assert metrics.output_sqnr_db > 55
    assert metrics_of([whole], None, None).worst_sqnr_db is None


def test_equal_outputs_have_no_worst_slice() -> None:
    values = np.random.default_rng(0).normal(size=(30, 5, 3))
    assert metrics_of([values], [values], None).worst_sqnr_db == float("inf")
