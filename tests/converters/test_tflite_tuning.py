"""`edgeq tune MODEL.tflite --qat --distill`: only weights change, and what cannot be trained is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.training.tflite import trained_constants

from .graphs import Graph
from .nets import net, samples

pytestmark = pytest.mark.convert
Run = Callable[..., Any]


def _write(folder: Path, model: Model, count: int = 60) -> Path:
    """Write a model and unlabelled data for it; return the model's path."""
    path = folder / "float.tflite"
    path.write_bytes(model.data)
    np.savez(folder / "unlabelled.npz", x=samples(model, count).arrays[0])
    return path


def _changed_constants(one: Model, other: Model) -> set[str]:
    return {
        tflite_file.tensor_name(tensor)
        for tensor, new in zip(one.graph.tensors, other.graph.tensors, strict=True)
        if not np.array_equal(one.parsed.buffers[tensor.buffer].data, other.parsed.buffers[new.buffer].data)
    }


def test_trained_weights_are_written_in_place_and_arrive_in_the_graph_of_integers() -> None:
    model = net()
    ready = prepared(model)
    constants = trained_constants.find(model, ready)
    assert {each.name for each in constants} == {"w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4"}
    arrived = trained_constants.carried(
        model, ready, constants, lambda data: prepared(Model(data=data, subject="x"))
    )
    assert arrived == constants
    values = {each.buffer: each.values + 1 for each in constants if each.name in {"w2", "b4"}}
    data = trained_constants.written(model, values, [each for each in constants if each.buffer in values])
    other = Model(data=data, subject="x")
    assert len(data) == len(model.data)
    assert _changed_constants(model, other) == {"w2", "b4"}
    w2 = next(each for each in constants if each.name == "w2")
    tensor = next(each for each in other.graph.tensors if each.name == b"w2")
    np.testing.assert_array_equal(edit.constant(other.parsed, tensor), w2.values + 1)
    differing = sum(a != b for a, b in zip(data, model.data, strict=True))
    assert differing <= sum(each.nbytes for each in values.values())


def test_a_constant_that_a_rewrite_changes_is_not_trained() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 8)), graph.tensor("y", (1, 8))
    divisor = graph.tensor("divisor", (8,), values=np.linspace(1, 3, 8))
    graph.op("DIV", [x, divisor], [y], options="DivOptions")
    model = graph.ends([x], [y]).as_model()
    ready = prepared(model)
    assert [tflite_file.op_name(ready.parsed, each) for each in ready.graph.operators] == ["MUL"]
    assert not trained_constants.find(model, ready)


@pytest.mark.slow
def test_the_tuned_file_differs_in_weights_only_and_is_nearer_in_integers(tmp_path: Path, edgeq: Run) -> None:
    model = net(spread=3.0, activation=3)  # ReLU6 between channels of very different sizes
    source, output = _write(tmp_path, model, 300), tmp_path / "tuned.tflite"
    words = ["--training", tmp_path / "unlabelled.npz", "-o", output, "--json", "--scheme", "int8"]
    result = edgeq("tune", source, "--qat", "--distill", *words)
    assert result.status == 0, result.err
    tuned = json.loads(result.out)
    assert "8 constants" in tuned["notes"][0]
    assert set(tuned["sqnr_db"]) == {"tuned", "ptq", "qat"}
    assert tuned["kept"] == "qat"
    assert tuned["sqnr_db"]["qat"] > tuned["sqnr_db"]["ptq"] + 1
    assert _changed_constants(model, Model.read(output)) <= {f"{kind}{n}" for kind in "wb" for n in range(5)}
    result = edgeq(
        "convert", output, "-o", tmp_path / "int.tflite", "--recipe", tmp_path / "tuned.recipe.json",
        "--calibration", tmp_path / "unlabelled.npz",
    )  # fmt: skip
    assert result.status == 0, result.err


def test_without_distill_a_tflite_is_refused_with_the_command(tmp_path: Path, edgeq: Run) -> None:
    source = _write(tmp_path, net())
    for words in ([], ["--loss", "mse"]):
        data = ["--training", tmp_path / "unlabelled.npz"]
        result = edgeq("tune", source, "--qat", *words, *data, "-o", tmp_path / "out.tflite")
        assert result.status == 1
        assert "error[EQ314]" in result.err
        assert "edgeq tune MODEL.tflite --qat --distill" in result.err
    result = edgeq("tune", source, "--qat", "--distill", "-o", tmp_path / "out.tflite")
    assert "error[EQ220]" in result.err
    result = edgeq("tune", source, "--qat", "--distill", *data, "-o", tmp_path / "out.keras")
    assert result.status == 2
    assert ".tflite" in result.err
    result = edgeq(
        "tune", source, "--qat", "--distill", "--loss", "mse", *data, "-o", tmp_path / "out.tflite"
    )
    assert result.status == 2
    assert not list(tmp_path.glob("out*"))


def _quantized() -> Model:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4), dtype=np.int8), graph.tensor("y", (1, 4))
    graph.op("DEQUANTIZE", [x], [y])
    return graph.ends([x], [y]).as_model()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "arrays", "what"),
    [
        (_quantized(), {"x": np.ones((40, 4), np.float32)}, "EQ304"),
        (net(), {"x": np.ones((40, 8, 8), np.float32)}, "EQ203"),
        (net(), {"x": np.full((40, 8, 8, 2), np.nan, np.float32)}, "EQ204"),
        (net(), {"x": np.ones((40, 8, 8, 2), np.float32)}, "EQ202"),
    ],
    ids=["quantized", "shape", "nan", "equal samples"],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(
    tmp_path: Path, edgeq: Run, model: Model, arrays: dict[str, Any], what: str
) -> None:
    source = tmp_path / "float.tflite"
    source.write_bytes(model.data)
    np.savez(tmp_path / "data.npz", **arrays)
    words = ["--training", tmp_path / "data.npz", "-o", tmp_path / "out.tflite"]
    result = edgeq("tune", source, "--qat", "--distill", *words)
    assert result.status == 1
    assert f"error[{what}]" in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("out*"))


def _with_output(kind: str) -> Model:
    """Return a dense layer with one output that training cannot follow."""
    graph = Graph()
    x, scores = graph.tensor("x", (1, 4)), graph.tensor("scores", (1, 3))
    weights = graph.tensor("w", (3, 4), values=np.random.default_rng(0).normal(size=(3, 4)))
    graph.op("FULLY_CONNECTED", [x, weights, -1], [scores], options="FullyConnectedOptions")
    if kind == "not a number":
        y = graph.tensor("y", (1, 3))
        graph.op("LOG", [scores], [y])
        return graph.ends([x], [y]).as_model()
    axis, y = (
        graph.tensor("axis", (1,), dtype=np.int32, values=[1]),
        graph.tensor("y", (1,), dtype=np.int32),
    )
    graph.op("ARG_MAX", [scores, axis], [y], options="ArgMaxOptions", outputType=schema.TensorType.INT32)
    return graph.ends([x], [y]).as_model()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "what"),
    [("not a number", "EQ309"), ("class number", "EQ342")],
)
def test_outputs_that_cannot_be_trained_towards_are_refused(
    tmp_path: Path, edgeq: Run, kind: str, what: str
) -> None:
    source = tmp_path / "float.tflite"
    source.write_bytes(_with_output(kind).data)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32))
    words = ["--training", tmp_path / "data.npz", "--epochs", 1, "-o", tmp_path / "out.tflite"]
    result = edgeq("tune", source, "--qat", "--distill", *words)
    assert result.status == 1
    assert f"error[{what}]" in result.err
    assert not list(tmp_path.glob("out*"))
