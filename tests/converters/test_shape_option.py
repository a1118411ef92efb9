"""`--shape` for a `.tflite`: open dimensions are fixed, and what contradicts the model is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.sources.load import load_source
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
