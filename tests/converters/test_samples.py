"""Samples become what a model's inputs take, or a named error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.conversion.in_memory_samples import write_samples
from edgeq_converters.data import array_names
from edgeq_converters.data.files import RawSamples, read
from edgeq_converters.data.labels import check_labels
from edgeq_converters.data.samples import match, to_model, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.interpreter import batches
from edgeq_converters.values import TensorInfo, warnings_of

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


NAMES = st.lists(
    st.sampled_from(["input_0", "input_1", "input_2", "arr_0", "arr_1", "x", "image", "serving_default_x:0"]),
    min_size=1,
    max_size=3,
    unique=True,
)


@given(NAMES, NAMES)
def test_no_array_feeds_two_inputs_and_names_come_first(inputs: list[str], arrays: list[str]) -> None:
    chosen = array_names.pair(inputs, arrays)
    if chosen is None:
        return
    assert len(set(chosen)) == len(inputs)
    assert set(chosen) <= set(arrays)
    if set(inputs) <= set(arrays):
        assert list(chosen) == inputs


@pytest.mark.parametrize("key", ["input_{}", "arr_{}", "#{}"])
def test_positions_count_where_names_do_not_fit(key: str) -> None:
    arrays = {key.format(i): np.full((5, 2), i) for i in range(2)}
    inputs = [TensorInfo(name=f"input_{i}", shape=(1, 2), dtype="float32") for i in (1, 2)]
    matched = match(RawSamples(subject="d", arrays=arrays), inputs)
    assert [int(array[0, 0]) for array in matched.arrays] == [0, 1]


def test_arrays_given_by_position_are_never_taken_by_name(tmp_path: Path) -> None:
    inputs = [TensorInfo(name=f"input_{i}", shape=(1, 2), dtype="float32") for i in (1, 0)]
    path = write_samples(iter([[np.full((1, 2), 7.0), np.full((1, 2), 9.0)]]), tmp_path / "s.npz")
    matched = match(read(path), inputs)
    assert [float(array[0, 0]) for array in matched.arrays] == [7.0, 9.0]


def test_arrays_that_no_input_takes_are_named() -> None:
    arrays = {"image": np.zeros((5, 8, 8, 1)), "name": np.zeros(5)}
    (note,) = warnings_of(match(RawSamples(subject="d", arrays=arrays), [IMAGE]).notes)
    assert note == "d: the model has no input for `name`; not used"


def test_y_is_an_input_where_the_model_has_one() -> None:
    inputs = [TensorInfo(name=name, shape=(1, 2), dtype="float32") for name in ("x", "y")]
    raw = RawSamples(subject="d", arrays={"x": np.zeros((5, 2))}, labels=np.ones((5, 2)))
    assert [float(array[0, 0]) for array in match(raw, inputs).arrays] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("shape", "given", "batch"),
    [
        ((1, 8), (5, 8), 1),
        ((4, 8), (5, 8), 4),
        ((2, 1, 8), (5, 2, 1, 8), 1),
        ((400,), (5, 400), 1),
        ((1,), (5,), 1),
        ((), (5,), 1),
        ((1, 8), (5, 1, 8), 1),
    ],
)
def test_a_sample_is_a_row_of_the_batch_or_fills_the_input(
    shape: tuple[int, ...], given: tuple[int, ...], batch: int
) -> None:
    tensor = TensorInfo(name="x", shape=shape, dtype="float32")
    matched = match(RawSamples(subject="d", arrays={"x": np.zeros(given)}), [tensor])
    assert matched.batch == batch
    rows = list(batches(matched, [tensor]))
    assert {np.shape(row[0]) for row, _ in rows} == {shape}
    assert sum(count for _, count in rows) == 5


def test_inputs_of_different_batches_are_refused() -> None:
    inputs = [TensorInfo(name=name, shape=(size, 8), dtype="float32") for name, size in (("a", 1), ("b", 2))]
    with pytest.raises(ConverterError) as caught:
        match(RawSamples(subject="d", arrays={"a": np.zeros((5, 8)), "b": np.zeros((5, 8))}), inputs)
    assert caught.value.code == "EQ203"
    assert "2 for `b`" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((5, 3, 8, 6), (1, 8, 6, 3)),
        ((5, 6, 8, 3), (1, 8, 6, 3)),
        ((8, 6, 3), (1, 8, 6, 3)),
        ((5, 8, 6), (1, 8, 6, 1)),
        ((5, 1, 8, 6, 3), (4, 8, 6, 3)),
        ((5, 144), (1, 8, 6, 3)),
        ((5, 3, 7), (1, 7, 3)),
    ],
)
def test_the_hint_on_a_wrong_shape_is_a_line_that_repairs_it(
    given: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    tensor = TensorInfo(name="x", shape=expected, dtype="float32")
    x = np.zeros(given)
    with pytest.raises(ConverterError) as caught:
        match(RawSamples(subject="d", arrays={"x": x}), [tensor])
    assert caught.value.code == "EQ203"
    code = str(caught.value.hint).partition("x = ")[2]
    repaired = eval(code, {"x": x})  # noqa: S307 # our own hint
    match(RawSamples(subject="d", arrays={"x": repaired}), [tensor])
