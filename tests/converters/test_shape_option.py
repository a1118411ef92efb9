"""`--shape` for a `.tflite`: open dimensions are fixed, and what contradicts the model is one line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import Samples, match
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.sources import keras_config
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.load import load_source
from edgeq_converters.sources.resize import with_shapes
from edgeq_converters.sources.types import SourceOptions
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert
Sizes = tuple[int, ...]


def model(path: Path, shape: Sizes, signature: Sizes | None) -> Path:
    """Write y = x + x + x, whose input `x` has this shape and this signature of open dimensions."""
    graph: Any = Graph()
    x = graph.tensor("x", shape, signature=signature)
    a, y = (graph.tensor(name, shape, signature=signature) for name in ("a", "y"))
    graph.op("ADD", (x, x), (a,), options="AddOptions")
    graph.op("ADD", (a, x), (y,), options="AddOptions")
    path.write_bytes(graph.ends([x], [y]).data())
    return path


def loaded(source: Path, folder: Path, *shapes: tuple[str, Sizes]) -> Model:
    options = SourceOptions(shapes=shapes)
    return load_source(source, folder, announce=lambda _what: None, options=options).model


OPEN: dict[str, tuple[Sizes, Sizes | None]] = {
    "signature": ((1, 1, 3), (1, -1, 3)),
    "batch and length": ((1, 1, 3), (-1, -1, 3)),
    "without a signature": ((1, -1, 3), None),
    "zero": ((1, 0, 3), None),
    "all": ((1, 1, 1), (-1, -1, -1)),
}


@pytest.mark.parametrize("case", OPEN)
def test_an_open_dimension_is_asked_for_and_fixed(case: str, tmp_path: Path) -> None:
    source = model(tmp_path / "m.tflite", *OPEN[case])
    with pytest.raises(ConverterError) as caught:
        loaded(source, tmp_path)
    assert caught.value.code == "EQ306"
    assert str(caught.value.hint).startswith("--shape x=1,N,")
    fixed = loaded(source, tmp_path, ("x", (1, 5, 3)))
    assert [tensor.shape for tensor in (*fixed.inputs, *fixed.outputs)] == [(1, 5, 3)] * 2
    given = np.arange(15, dtype=np.float32).reshape(1, 5, 3)
    (got,) = run_samples(fixed, Samples(inputs=fixed.inputs, arrays=(given,)), advance=lambda _done: None)
    np.testing.assert_array_equal(got, 3 * given)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("z", (1, 5, 3)), "the model has no input `z`"),
        (("x", (5, 3)), "is not one that the model takes"),
        (("x", (1, 5, 3, 1)), "is not one that the model takes"),
        (("x", (1, 5, 4)), "is not one that the model takes"),
        (("x", (2, 5, 3)), "is not one that the model takes"),
    ],
)
def test_a_shape_that_contradicts_the_model_is_refused(
    shape: tuple[str, Sizes], words: str, tmp_path: Path
) -> None:
    source = model(tmp_path / "m.tflite", (1, 1, 3), (1, -1, 3))
    with pytest.raises(ConverterError) as caught:
        loaded(source, tmp_path, shape)
    assert caught.value.code == "EQ306"
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_fixed_model_takes_its_own_shape_only(tmp_path: Path) -> None:
    source = model(tmp_path / "m.tflite", (1, 5, 3), None)
    assert loaded(source, tmp_path, ("x", (1, 5, 3))).data == source.read_bytes()
    with pytest.raises(ConverterError) as caught:
        loaded(source, tmp_path, ("x", (1, 6, 3)))
    assert caught.value.code == "EQ306"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "calibrate"])
def test_the_commands_compare_the_shape_with_the_data(
    command: str, tmp_path: Path, edgeq: Callable[..., Any]
) -> None:
    source = model(tmp_path / "m.tflite", (1, 1, 3), (1, -1, 3))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(40, 5, 3)).astype(np.float32))
    if command == "convert":
        words = ["convert", source, "-o", tmp_path / "o.tflite", "--scheme", "int8"]
        words += ["--calibration", tmp_path / "d.npz"]
    else:
        words = ["calibrate", source, "-o", tmp_path / "o.npz", "--data", tmp_path / "d.npz"]
    for shapes, code in (((), "EQ306"), (("--shape", "x=1,6,3"), "EQ203"), (("--shape", "x=1,0,3"), "EQ101")):
        result = edgeq(*words, *shapes)
        assert (result.status, result.out) == (2 if code == "EQ101" else 1, "")
        assert [line[:12] for line in result.err.splitlines() if line.startswith("error")] == [
            f"error[{code}]"
        ]
        assert not list(tmp_path.glob("o.*"))
    result = edgeq(*words, "--shape", "x=1,5,3")
    assert result.status == 0, result.err


def keras_file(path: Path, shape: list[int | None], *, kind: str = "Functional", what: Any = None) -> Path:
    """Write a .keras file with its configuration alone: whoever loads it fails."""
    layer = {
        "class_name": "InputLayer",
        "config": {"name": "audio", "batch_shape": shape, "dtype": "float32"},
    }
    config: dict[str, Any] = {"layers": [layer, {"class_name": "Dense", "config": {"name": "d"}}]}
    if kind == "Functional":
        config["input_layers"] = what or [["audio", 0, 0]]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": kind, "config": config}))
    return path


@pytest.mark.parametrize("kind", ["Functional", "Sequential"])
@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ((), "input `audio` has open dimensions besides the batch"),
        ((("z", (1, 5)),), "the model has no input `z`"),
        ((("audio", (5,)),), "is not one that the model takes"),
        ((("audio", (1, 5, 4)),), "is not one that the model takes"),
    ],
)
def test_the_shapes_of_a_keras_model_are_judged_by_its_configuration(
    kind: str, shapes: tuple[tuple[str, Sizes], ...], words: str, tmp_path: Path
) -> None:
    source = keras_file(tmp_path / "m.keras", [None, None, 3], kind=kind)
    with pytest.raises(ConverterError) as caught:
        loaded(source, tmp_path, *shapes)
    assert (caught.value.code, words in str(caught.value)) == ("EQ306", True)


def test_data_is_compared_with_the_configuration_of_a_keras_model(tmp_path: Path) -> None:
    source = keras_file(tmp_path / "m.keras", [None, None, 3], what=["audio", 0, 0])
    raw = RawSamples(subject="d.npz", arrays={"x": np.zeros((4, 6, 3), np.float32)})
    with pytest.raises(ConverterError) as caught:
        load_source(
            source,
            tmp_path,
            announce=lambda _what: None,
            options=SourceOptions(shapes=(("audio", (1, 5, 3)),)),
            check=lambda inputs: match(raw, inputs),
        )
    assert caught.value.code == "EQ203"


@pytest.mark.parametrize(
    "what", [{"audio": ["audio", 0, 0]}, [[["audio", 0, 0]]], [], "audio", [["other", 0, 0]], 7, [7]]
)
def test_a_configuration_of_another_form_is_left_to_keras(what: Any, tmp_path: Path) -> None:
    source = keras_file(tmp_path / "m.keras", [None, 3], what=what)
    assert (keras_config.declared_inputs(source, SourceKind.KERAS) is None) == (what != [])


KEYS = ["class_name", "config", "layers", "input_layers", "name", "batch_shape", "dtype"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.integers(-2, 9) | st.sampled_from(["InputLayer", "Functional", "Sequential", "audio"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["class_name", "config", "layers", "input_layers", "name", "batch_shape", "dtype"]
                ),
                inner,
            )
        ),
    )
)
def test_any_configuration_is_read_without_a_traceback(body: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(body))
    keras_config.declared_inputs(path, SourceKind.KERAS)


FORMS: dict[str, tuple[Sizes, Sizes | None]] = {
    "-1 in the signature": ((1, 4, 3), (-1, 4, 3)),
    "-1 in the shape": ((-1, 4, 3), None),
    "0 in the shape": ((0, 4, 3), None),
    "0 in the signature": ((1, 4, 3), (0, 4, 3)),
    "-1 in both": ((-1, 4, 3), (-1, 4, 3)),
    "0 in the shape, -1 in the signature": ((0, 4, 3), (-1, 4, 3)),
    "a larger shape under an open batch": ((8, 4, 3), (-1, 4, 3)),
    "an empty signature": ((-1, 4, 3), ()),
}


@pytest.mark.parametrize("case", FORMS)
def test_an_open_batch_becomes_one_in_every_form_of_a_file(case: str, tmp_path: Path) -> None:
    fixed = loaded(model(tmp_path / "m.tflite", *FORMS[case]), tmp_path)
    tensors = [tensor for tensor in fixed.graph.tensors if tensor.name in (b"x", b"a", b"y")]
    assert [tuple(tensor.shape) for tensor in tensors] == [(1, 4, 3)] * 3
    assert [tensor.shape for tensor in (*fixed.inputs, *fixed.outputs)] == [(1, 4, 3)] * 2
    given = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    (got,) = run_samples(fixed, Samples(inputs=fixed.inputs, arrays=(given,)), advance=lambda _done: None)
    np.testing.assert_array_equal(got, 3 * given)


def test_shapes_that_an_open_batch_left_out_are_found() -> None:
    graph = Graph()
    x = graph.tensor("x", (1, 4, 6), signature=(-1, 4, 6))
    rows = graph.tensor("rows", (1, 1), signature=(-1, -1))
    sizes = graph.tensor("sizes", (2,), dtype=np.int32, values=[-1, 6])
    weights = graph.tensor("weights", (3, 6), values=np.ones((3, 6)))
    out = graph.tensor("out", (1, 3), signature=(-1, 3))
    graph.op("RESHAPE", [x, sizes], [rows])
    graph.op("FULLY_CONNECTED", [rows, weights, -1], [out], options="FullyConnectedOptions")
    fixed = with_shapes(graph.ends([x], [out]).as_model(), SourceOptions())
    assert [list(fixed.graph.tensors[i].shape) for i in (x, rows, out)] == [[1, 4, 6], [4, 6], [4, 3]]
    assert with_shapes(fixed, SourceOptions()) is fixed
