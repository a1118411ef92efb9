"""The figures of an evaluation, against values worked out by hand and laws that they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.evaluation import TensorInfo, dequantized
from edgeq.evaluation.figures import accuracy, agreement, predicted, sqnr_db

OUTPUTS = arrays(np.float64, (7, 3), elements=st.floats(-100, 100))


def test_by_hand() -> None:
    reference = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    output = np.array([[0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    assert predicted(output).tolist() == [1, 1, 1, 0]
    assert accuracy(output, np.array([1, 0, 1, 0])) == 0.75
    assert agreement(output, reference) == 0.75
    signal = 0.01 + 0.81 + 0.64 + 0.04 + 0.09 + 0.49 + 0.36 + 0.16
    noise = 0.01 + 0.01 + 0.16 + 0.16
    assert sqnr_db([output], [reference]) == pytest.approx(10 * math.log10(signal / noise))


def test_sqnr_is_over_all_outputs() -> None:
    one, two = np.ones((2, 1)), np.full((2, 2), 3.0)
    assert sqnr_db([one + 1, two], [one, two]) == pytest.approx(10 * math.log10((2 + 36) / 2))


def test_equal_outputs_and_a_silent_reference() -> None:
    assert sqnr_db([np.ones((2, 2))], [np.ones((2, 2))]) == math.inf
    assert sqnr_db([np.ones((2, 2))], [np.zeros((2, 2))]) == -math.inf


@given(OUTPUTS, st.floats(0.01, 100))
def test_sqnr_does_not_know_the_unit(reference: np.ndarray, factor: float) -> None:
    output = reference + np.linspace(0.1, 1, 21).reshape(7, 3)
    assume(np.square(reference).sum() > 1)
    assert sqnr_db([output * factor], [reference * factor]) == pytest.approx(sqnr_db([output], [reference]))


@given(OUTPUTS)
def test_a_model_agrees_with_itself(output: np.ndarray) -> None:
    assert agreement(output, output) == 1
    assert accuracy(output, predicted(output)) == 1


def test_dequantized() -> None:
    quantized = TensorInfo(name="p", shape=(1, 2), dtype="int8", scale=0.5, zero_point=-128)
    plain = TensorInfo(name="q", shape=(1, 1), dtype="float32")
    real = dequantized([np.array([[-128, 127]], np.int8), np.array([[2.5]], np.float32)], [quantized, plain])
    assert real[0].tolist() == [[0.0, 127.5]]
    assert real[1].tolist() == [[2.5]]
