"""Validation of a float model before its conversion: weights, shapes, operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq.conversion import Scheme
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import validate
from edgeq_converters.graph.model import Model

from .graphs import Graph

pytestmark = pytest.mark.convert
Edgeq = Callable[..., Any]


def dense(weights: Any, *, signature: Any = None) -> Model:
    graph = Graph()
    x = graph.tensor("x", (1, 4), signature=signature)
    w = graph.tensor("dense/kernel", (3, 4), values=weights)
    y = graph.tensor("y", (1, 3))
    graph.op("FULLY_CONNECTED", [x, w, -1], [y], options="FullyConnectedOptions")
    return graph.ends([x], [y]).as_model()


@pytest.mark.slow
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic", "int8"])
def test_bad_weights_are_named(tmp_path: Path, edgeq: Edgeq, bad: float, scheme: str) -> None:
    weights = np.ones((3, 4), np.float32)
    weights[1, 2] = weights[2, 0] = bad
    if scheme in ("float32", "int8"):
        model, output = tmp_path / "m.tflite", tmp_path / "o.tflite"
        model.write_bytes(dense(weights).data)
        np.savez(tmp_path / "c.npz", x=np.ones((4, 4), np.float32))
        result = edgeq(
            "convert", model, "-o", output, "--scheme", scheme, "--calibration", tmp_path / "c.npz"
        )
        assert (result.status, result.out, output.exists()) == (1, "", False)
        words = result.err
    else:
        with pytest.raises(ConverterError) as caught:
            validate.require_convertible(dense(weights), scheme=Scheme(scheme))
        words = f"error[{caught.value.code}] {caught.value}"
    assert "error[EQ321]" in words
    assert "2 of 12 values of the weights 'dense/kernel' (of FULLY_CONNECTED)" in words
    assert f"got {bad} at [1, 2]" in words


def test_an_infinite_mask_is_allowed_in_a_float_model() -> None:
    graph = Graph()
    x, mask = graph.tensor("x", (1, 4)), graph.tensor("mask", (1, 4), values=[0, 0, -np.inf, 0])
    y = graph.tensor("y", (1, 4))
    graph.op("ADD", [x, mask], [y], options="AddOptions")
    checked = graph.ends([x], [y]).as_model()
    validate.require_convertible(checked, scheme=Scheme.FLOAT16)
    with pytest.raises(ConverterError, match="'mask' \\(of ADD\\)"):
        validate.require_convertible(checked, scheme=Scheme.INT8)


def test_a_bad_value_in_a_later_chunk_is_found() -> None:
    graph = Graph()
    values = np.zeros((1025, 2048), np.float32)
    values[1024, 2047] = np.nan
    x, table = graph.tensor("x", (1,), dtype=np.int32), graph.tensor("table", values.shape, values=values)
    y = graph.tensor("y", (1, 2048))
    graph.op("GATHER", [table, x], [y], options="GatherOptions")
    checked = graph.ends([x], [y]).as_model()
    with pytest.raises(ConverterError, match=r"1 of 2099200 .* got nan at \[1024, 2047\]"):
        validate.require_convertible(checked, scheme=Scheme.FLOAT32)


@pytest.mark.parametrize(("signature", "fits"), [((-1, 4), True), ((1, 4), True), ((1, -1), False)])
def test_only_the_batch_may_be_open(signature: tuple[int, ...], fits: bool) -> None:
    checked = dense(np.ones((3, 4)), signature=signature)
    if fits:
        validate.require_convertible(checked, scheme=Scheme.INT8)
        return
    with pytest.raises(
        ConverterError, match=r"open dimensions besides the batch, .* got \(1, \?\)"
    ) as caught:
        validate.require_convertible(checked, scheme=Scheme.INT8)
    assert caught.value.code == "EQ306"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [("CUSTOM MyOp", "custom operation MyOp"), ("CUSTOM FlexRoll", "TensorFlow's own operations")],
)
def test_custom_and_tensorflow_operations_are_refused(
    tmp_path: Path, edgeq: Edgeq, name: str, words: str
) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4)), graph.tensor("y", (1, 4))
    graph.op(name, [x], [y])
    model = tmp_path / "m.tflite"
    model.write_bytes(graph.ends([x], [y]).data())
    for scheme in ("float16", "int8"):
        np.savez(tmp_path / "c.npz", x=np.ones((4, 4), np.float32))
        command = ["convert", model, "-o", tmp_path / "o.tflite", "--scheme", scheme]
        result = edgeq(*command, "--calibration", tmp_path / "c.npz")
        assert (result.status, result.out) == (1, "")
        assert "error[EQ323]" in result.err
        assert words in result.err


@pytest.mark.slow
def test_operations_that_no_backend_quantizes_are_named(tmp_path: Path, edgeq: Edgeq) -> None:
    graph = Graph()
    x, other, a, y = (graph.tensor(name, (1, 4)) for name in ("x", "other", "a", "y"))
    graph.op("ATAN2", [x, other], [a])
    graph.op("FLOOR_MOD", [a, other], [y], options="FloorModOptions")
    model, output = tmp_path / "m.tflite", tmp_path / "o.tflite"
    model.write_bytes(graph.ends([x, other], [y]).data())
    values = np.random.default_rng(0).uniform(1, 2, size=(2, 8, 4)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=values[0], other=values[1])
    result = edgeq("convert", model, "-o", output, "--scheme", "int8", "--calibration", tmp_path / "c.npz")
    assert (result.status, result.out, output.exists()) == (1, "", False)
    assert "error[EQ307]" in result.err
    assert "ATAN2" in result.err
    assert "FLOOR_MOD" in result.err


@pytest.mark.slow
def test_a_model_without_signature_several_inputs_and_outputs(tmp_path: Path, edgeq: Edgeq) -> None:
    graph = Graph()
    a, b = graph.tensor("a", (1, 4)), graph.tensor("b", (1, 4))
    both, twice = graph.tensor("both", (1, 4)), graph.tensor("twice", (1, 4))
    graph.op("ADD", [a, b], [both], options="AddOptions")
    graph.op("MUL", [both, b], [twice], options="MulOptions")
    source = tmp_path / "m.tflite"
    source.write_bytes(graph.ends([a, b], [twice, both]).data())
    random, data = np.random.default_rng(0), tmp_path / "c.npz"
    np.savez(data, a=random.normal(size=(40, 4)), b=random.normal(size=(40, 4)))
    for io in ("int8", "float32"):
        output = tmp_path / f"{io}.tflite"
        result = edgeq("convert", source, "-o", output, "--scheme", "int8", "--io", io, "--calibration", data)
        assert result.status == 0, result.err
        result = edgeq("evaluate", output, "--data", data, "--reference", source, "--json")
        assert result.status == 0, result.err
        assert json.loads(result.out)["metrics"]["output_sqnr_db"] > 25
