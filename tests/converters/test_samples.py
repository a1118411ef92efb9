"""Samples become what a model's inputs take, or a named error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import check_labels, match, to_model, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

IMAGE = TensorInfo(name="serving_default_image:0", shape=(1, 8, 8, 1), dtype="float32")
EXTRA = TensorInfo(name="extra", shape=(1, 2), dtype="float32")
INT8 = TensorInfo(name="image", shape=(1, 4), dtype="int8", scale=0.5, zero_point=-3)


def test_uint8_images_feed_a_float_model_as_0_to_255() -> None:
    pixels = np.array([[0, 128, 255]], np.uint8)
    assert to_model(pixels, EXTRA).tolist() == [[0.0, 128.0, 255.0]]


def test_real_values_are_quantized_and_integers_of_the_input_s_type_are_kept() -> None:
    assert to_model(np.array([0.0, 1.0, -1.0, 1000.0]), INT8).tolist() == [-3, -1, -5, 127]
    assert to_model(np.array([7, -8], np.int8), INT8).tolist() == [7, -8]
    # uint8 images are real values for an int8 model: 200 is far out of its range here, and is clipped.
    assert to_model(np.array([2, 200], np.uint8), INT8).tolist() == [1, 127]


@given(st.lists(st.floats(-60, 60), min_size=1, max_size=20))
def test_quantizing_and_back_is_within_half_a_step(values: list[float]) -> None:
    real = np.array(values)
    assert np.all(np.abs(to_real(to_model(real, INT8), INT8) - real) <= 0.25 + 1e-9)


def test_integer_inputs_refuse_fractions() -> None:
    ids = TensorInfo(name="ids", shape=(1, 2), dtype="int32")
    assert to_model(np.array([[1.0, 2.0]]), ids).dtype == np.int32
    with pytest.raises(ConverterError) as caught:
        to_model(np.array([[1.5, 2.0]]), ids)
    assert caught.value.code == "EQ211"


@pytest.mark.parametrize("name", ["x", "image", "input_0", "anything"])
def test_one_input_takes_the_only_array(name: str) -> None:
    raw = RawSamples(subject="d", arrays={name: np.zeros((5, 8, 8, 1))})
    assert len(match(raw, [IMAGE])) == 5


def test_two_inputs_need_two_names() -> None:
    arrays = {"extra": np.ones((5, 2)), "image": np.zeros((5, 8, 8, 1))}
    matched = match(RawSamples(subject="d", arrays=arrays), [IMAGE, EXTRA])
    assert [array.shape for array in matched.arrays] == [(5, 8, 8, 1), (5, 2)]
    with pytest.raises(ConverterError) as caught:
        match(RawSamples(subject="d", arrays={"x": np.zeros((5, 8, 8, 1))}), [IMAGE, EXTRA])
    assert caught.value.code == "EQ205"


def test_a_forgotten_last_dimension_gets_the_hint() -> None:
    with pytest.raises(ConverterError) as caught:
        match(RawSamples(subject="d", arrays={"x": np.zeros((5, 8, 8))}), [IMAGE])
    assert caught.value.code == "EQ203"
    assert "x[..., None]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (np.array([0, 1]), "EQ206"),
        (np.array([[0], [1], [2]]), "EQ206"),
        (np.array([0.0, 1.0, 2.0]), "EQ207"),
        (np.array([0, 1, 3]), "EQ208"),
        (np.array([0, -1, 2]), "EQ208"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray, code: str) -> None:
    with pytest.raises(ConverterError) as caught:
        check_labels(labels, samples=3, classes=3, subject="d")
    assert caught.value.code == code


def test_labels_need_classes() -> None:
    with pytest.raises(ConverterError) as caught:
        check_labels(np.array([0, 0]), samples=2, classes=1, subject="d")
    assert caught.value.code == "EQ313"
