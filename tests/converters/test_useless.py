"""Useless results are reported as such and refused with `--strict`; data is judged before the model."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq_converters.data.files import read
from edgeq_converters.data.labels import check_labels
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError, other_schemes
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import useless_classes, useless_output
from edgeq_converters.sensitivity.usefulness import find_loss
from edgeq_converters.values import Scheme
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert
SIZES = np.array([1000.0, 0.001, 1.0], np.float32)


def normalizing(path: Path) -> Path:
    """Write a model that scales three features to one size and adds them up in two ways."""
    graph = Graph()
    x, scaled = graph.tensor("x", (1, 3)), graph.tensor("scaled", (1, 3))
    factors = graph.tensor("factors", (3,), values=1 / SIZES)
    weights = graph.tensor("weights", (2, 3), values=[[1, 2, 1], [1, -2, -1]])
    bias, y = graph.tensor("bias", (2,), values=[0, 0]), graph.tensor("y", (1, 2))
    graph.op("MUL", [x, factors], [scaled], options="MulOptions")
    graph.op("FULLY_CONNECTED", [scaled, weights, bias], [y], options="FullyConnectedOptions")
    path.write_bytes(graph.ends([x], [y]).data())
    return path


@pytest.fixture
def features(tmp_path: Path) -> dict[str, Path]:
    """Samples by name: features of very different size, and of one size."""
    random = np.random.default_rng(0)
    files = {"uneven": random.normal(size=(80, 3)) * SIZES, "even": random.normal(size=(80, 3))}
    for name, x in files.items():
        np.savez(tmp_path / f"{name}.npz", x=x.astype(np.float32))
    return {name: tmp_path / f"{name}.npz" for name in files}


@pytest.mark.slow
def test_the_operation_that_loses_the_answer_is_named(
    features: dict[str, Path], tmp_path: Path, edgeq: Callable[..., Any]
) -> None:
    model, output = normalizing(tmp_path / "m.tflite"), tmp_path / "q.tflite"
    command = ("convert", model, "-o", output, "--scheme", "int8", "--calibration")
    result = edgeq(*command, features["uneven"])
    assert result.status == 0, result.err
    (warning,) = [line for line in result.err.splitlines() if "useless" in line]
    assert "MUL 'scaled' loses it" in warning
    output.unlink()
    result = edgeq(*command, features["uneven"], "--strict")
    assert (result.status, output.exists()) == (1, False)
    assert "error[EQ334]" in result.err


@pytest.mark.slow
def test_a_useful_result_is_not_called_useless(tmp_path: Path, edgeq: Callable[..., Any]) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 3)), graph.tensor("y", (1, 2))
    weights = graph.tensor("weights", (2, 3), values=[[1, 2, 1], [1, -2, -1]])
    graph.op(
        "FULLY_CONNECTED",
        [x, weights, graph.tensor("bias", (2,), values=[5, 0])],
        [y],
        options="FullyConnectedOptions",
    )
    model = tmp_path / "m.tflite"
    model.write_bytes(graph.ends([x], [y]).data())
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32))
    command = ("convert", model, "-o", tmp_path / "q.tflite", "--scheme", "int8", "--calibration")
    result = edgeq(*command, tmp_path / "c.npz", "--strict")
    assert result.status == 0, result.err
    assert "useless" not in result.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits.keras", "model.tflite", "weights.h5", "table.csv", "list.zip"])
def test_a_file_that_holds_no_samples_is_named(name: str, tmp_path: Path, edgeq: Callable[..., Any]) -> None:
    model, data = normalizing(tmp_path / "m.tflite"), tmp_path / name
    if data.suffix in {".keras", ".zip"}:
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", b"\x89HDF")
    elif data.suffix == ".tflite":
        data.write_bytes(model.read_bytes())
    else:
        data.write_bytes(b"\x89HDF\r\n\x1a\n" if data.suffix == ".h5" else b"1,2,3\n")
    result = edgeq("convert", model, "-o", tmp_path / "q.tflite", "--scheme", "int8", "--calibration", data)
    assert result.status == 1
    assert f"error[EQ201]: {data}: cannot be read as samples" in result.err


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), keep=st.integers(0, 2000), cut=st.booleans())
def test_a_damaged_file_of_samples_is_an_error_about_the_data(
    seed: int, keep: int, cut: bool, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    path = tmp_path / "d.npz"
    np.savez(path, x=np.arange(40, dtype=np.float32).reshape(10, 4), y=np.zeros(10, np.int64))
    content = bytearray(path.read_bytes())
    if cut:
        content = content[:keep]
    else:
        for position in random.integers(0, len(content), 6):
            content[position] = random.integers(0, 256)
    path.write_bytes(content)
    try:
        read(path)
    except ConverterError as error:
        assert error.code.startswith("EQ2")  # noqa: PT017 # an undamaged reading is fine too


@pytest.mark.parametrize("scheme", Scheme)
def test_a_hint_never_names_the_scheme_that_failed(scheme: Scheme) -> None:
    assert f" {scheme} " not in f"{other_schemes(scheme)} "


def test_labels_that_are_one_hot_get_the_line_that_repairs_them() -> None:
    labels = np.eye(3, dtype=np.int64)[[0, 2, 1, 1]]
    with pytest.raises(ConverterError) as caught:
        check_labels(labels, samples=4, classes=3, subject="d")
    assert caught.value.hint == "y = y.argmax(1)"
    assert check_labels(labels.argmax(1), samples=4, classes=3, subject="d").tolist() == [0, 2, 1, 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_an_output_is_judged_by_what_varies_in_it(seed: int, scale: float, offset: float) -> None:
    random = np.random.default_rng(seed)
    varying = random.normal(size=(30, 4)) * scale
    expected = varying + offset * scale
    assert useless_output(expected + 0.1 * random.normal(size=(30, 4)) * scale, expected) is None
    assert "is the same for every sample" in str(useless_output(np.repeat(expected[:1], 30, 0), expected))
    assert "at least 10 dB" in str(useless_output(expected[::-1], expected))
    assert useless_output(np.full((30, 4), np.nan), expected) == "holds NaN or infinity"
    assert useless_output(expected, np.ones((30, 4))) is None  # nothing varies in the float model's


def test_classes_at_chance_are_useless_and_rare_ones_are_not() -> None:
    random = np.random.default_rng(0)
    right = random.integers(0, 4, 200)
    assert useless_classes(right, right) is None
    assert "chance" in str(useless_classes(random.permutation(right), right))
    assert "every sample gets the same class" in str(useless_classes(np.zeros(200, int), right))
    assert useless_classes(np.where(random.random(200) < 0.5, right, 0), right) is None
    assert useless_classes(np.zeros(200, int), np.zeros(200, int)) is None  # one class only
    assert useless_classes(np.zeros(9, int), np.arange(9)) is None  # too few


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dynamic", "float16"])
def test_a_useless_model_with_float_activations_is_said_and_refused(
    scheme: str, tmp_path: Path, edgeq: Callable[..., Any]
) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 3)), graph.tensor("y", (1, 2))
    # int8 loses the small weights beside the large one; float16 has no value for the large one.
    weights = graph.tensor("weights", (2, 3), values=[[1e6, 1e-3, 1e-3], [1e6, -1e-3, 1e-3]])
    bias = graph.tensor("bias", (2,), values=[0, 0])
    graph.op("FULLY_CONNECTED", [x, weights, bias], [y], options="FullyConnectedOptions")
    model, output = tmp_path / "m.tflite", tmp_path / "q.tflite"
    model.write_bytes(graph.ends([x], [y]).data())
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32) * [0, 1, 1]
    np.savez(tmp_path / "c.npz", x=rows.astype(np.float32))
    command = ("convert", model, "-o", output, "--scheme", scheme, "--calibration", tmp_path / "c.npz")
    result = edgeq(*command)
    assert result.status == 0, result.err
    assert "useless" in result.err
    data = ("--data", tmp_path / "c.npz", "--reference", model)
    judged = edgeq("evaluate", output, *data)
    assert (judged.status, "warning: the model is useless" in judged.err) == (0, True)
    strict = edgeq("evaluate", output, *data, "--strict")
    assert (strict.status, "error[EQ334]" in strict.err) == (1, True)
    output.unlink()
    result = edgeq(*command, "--strict")
    assert (result.status, output.exists(), "error[EQ334]" in result.err) == (1, False, True)


def squashed(*, reduced: bool) -> Model:
    """Return a sigmoid, with or without a mean over its only element."""
    graph = Graph()
    x, y = graph.tensor("x", [1, 1]), graph.tensor("y", [1, 1])
    logit, score = graph.tensor("logit", [1, 1]), graph.tensor("score", [1, 1])
    graph.op("MUL", [x, graph.tensor("gain", [1], values=[3.0])], [logit])
    graph.op("LOGISTIC", [logit], [score if reduced else y])
    if reduced:
        axes = graph.tensor("axes", [1], dtype=np.int32, values=[1])
        graph.op("MEAN", [score, axes], [y], options="ReducerOptions", keepDims=True)
    return graph.ends([x], [y]).as_model()


@pytest.mark.parametrize("first", [True, False])
def test_logits_are_not_compared_with_probabilities(first: bool) -> None:
    one, other = squashed(reduced=first), squashed(reduced=not first)
    values = np.linspace(-2, 2, 30, dtype=np.float32).reshape(30, 1)
    assert find_loss(one, other, Samples(inputs=one.inputs, arrays=(values,))) is None
