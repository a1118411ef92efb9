"""The figures of an evaluation, against values computed by hand and invariants."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.evaluation import TensorInfo, dequantized
from edgeq.evaluation.evaluation import accuracy, agreement, predicted

OUTPUTS = arrays(np.float64, (7, 3), elements=st.floats(-100, 100))


def test_accuracy_and_agreement_count_the_largest_outputs() -> None:
    reference = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    output = np.array([[0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    assert predicted(output).tolist() == [1, 1, 1, 0]
    assert accuracy(output, np.array([1, 0, 1, 0])) == 0.75
    assert agreement(output, reference) == 0.75


@given(OUTPUTS)
def test_a_model_agrees_with_itself(output: np.ndarray) -> None:
    assert agreement(output, output) == 1
    assert accuracy(output, predicted(output)) == 1


def test_quantized_outputs_become_real_values() -> None:
    quantized = TensorInfo(name="p", shape=(1, 2), dtype="int8", scale=0.5, zero_point=-128)
    plain = TensorInfo(name="q", shape=(1, 1), dtype="float32")
    real = dequantized([np.array([[-128, 127]], np.int8), np.array([[2.5]], np.float32)], [quantized, plain])
    assert real[0].tolist() == [[0.0, 127.5]]
    assert real[1].tolist() == [[2.5]]
