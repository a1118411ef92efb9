"""Parity of a source and its float .tflite: measured, warned of, refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq.conversion import convert
from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import match
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import reorder
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.load import to_tflite_layout
from edgeq_converters.sources.parity import check_parity
from edgeq_converters.sources.types import Loaded
from edgeq_converters.values import Parity

from .graphs import Graph

pytestmark = pytest.mark.convert
Arrays = Mapping[str, Any]


def double() -> Model:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4)), graph.tensor("y", (1, 4))
    graph.op("ADD", [x, x], [y], options="AddOptions")
    return graph.ends([x], [y]).as_model()


def check(reference: Any, *, samples: Any = None, seed: int = 0) -> Parity:
    model = double()
    given = None if samples is None else match(RawSamples(subject="s", arrays={"x": samples}), model.inputs)
    return check_parity(model, reference, samples=given, seed=seed)


def test_equal_models_are_infinitely_close() -> None:
    parity = check(lambda fed: {"y": 2 * fed["x"]})
    assert (parity.samples, parity.data, parity.sqnr_db, parity.max_abs_difference) == (
        16,
        "random",
        math.inf,
        0.0,
    )
    assert parity.caution() is None


def test_parity_reports_the_difference_in_decibels() -> None:
    samples = np.ones((40, 4), np.float32)
    parity = check(lambda fed: {"y": 2 * fed["x"] + np.float32(0.01)}, samples=samples)
    assert parity.max_abs_difference == pytest.approx(0.01, rel=1e-4)
    assert parity.sqnr_db == pytest.approx(20 * math.log10(2.01 / 0.01), abs=1e-3)
    assert (parity.samples, parity.data) == (16, "calibration")
    note = parity.caution()
    assert note is not None
    assert "46.1 dB from its source on 16 calibration samples" in note


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        (lambda fed: {"y": 3 * fed["x"]}, "output `y` differs by up to"),
        (lambda fed: {"y": fed["x"] * np.float32(np.nan)}, "differs by up to inf"),
        (lambda fed: {"y": 2 * fed["x"][:, :3]}, "another shape"),
        (lambda fed: {"y": fed["x"], "z": fed["x"]}, "outputs of the float .tflite are not"),
    ],
)
def test_gross_disagreement_is_refused(reference: Any, word: str) -> None:
    with pytest.raises(ConverterError, match=word) as caught:
        check(reference)
    assert caught.value.code == "EQ322"


def test_a_source_with_random_outputs_cannot_be_compared() -> None:
    random = np.random.default_rng(0)
    parity = check(lambda fed: {"y": 2 * fed["x"] + random.normal(size=(1, 4))})
    assert not parity.repeatable
    assert "different outputs on the same samples" in (parity.caution() or "")


def test_random_samples_follow_the_seed() -> None:
    def seen(seed: int) -> list[Any]:
        fed: list[Any] = []

        def model(arrays: dict[str, Any]) -> dict[str, Any]:
            fed.append(arrays["x"])
            return {"y": 2 * arrays["x"]}

        check(model, seed=seed)
        return fed

    assert np.array_equal(seen(3), seen(3))
    assert not np.array_equal(seen(3), seen(4))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.keras", "legacy.h5", "plain_saved_model", "keras2_saved_model"])
def test_sources_of_tensorflow_agree(models: Path, data: Path, tmp_path: Path, name: str) -> None:
    done = convert(models / name, tmp_path / "o.tflite", scheme="int8", calibration=data)
    assert done.parity is not None
    assert (done.parity.data, done.parity.samples) == ("calibration", 16)
    assert done.parity.sqnr_db > 100
    assert not any("from its source" in note for note in (*done.notes, *done.warnings))


@pytest.mark.slow
def test_a_tflite_is_its_own_reference(models: Path, tmp_path: Path) -> None:
    assert convert(models / "float.tflite", tmp_path / "o.tflite", scheme="float32").parity is None


def test_samples_in_the_source_s_layout_are_transposed(tmp_path: Path) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4, 5, 3)), graph.tensor("y", (1, 4, 5, 3))
    graph.op("ADD", [x, x], [y], options="AddOptions")
    model = graph.ends([x], [y]).as_model()
    loaded = Loaded(kind=SourceKind.ONNX, model=model, layouts={"x": (0, 2, 3, 1)})
    first = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    turned = to_tflite_layout(RawSamples(subject="s", arrays={"x": first}), loaded).arrays["x"]
    assert np.array_equal(turned, first.transpose(0, 2, 3, 1))
    last = to_tflite_layout(RawSamples(subject="s", arrays={"x": turned}), loaded).arrays["x"]
    assert np.array_equal(last, turned)
    sequences = RawSamples(subject="s", arrays={"x": first[None].repeat(3, 0)})  # (sequences, steps, ...)
    assert np.array_equal(to_tflite_layout(sequences, loaded).arrays["x"], turned[None].repeat(3, 0))


def test_reorder_sets_the_order_of_inputs_and_outputs() -> None:
    graph = Graph()
    a, b = graph.tensor("a", (1, 4)), graph.tensor("b", (1, 4))
    first, last = graph.tensor("first", (1, 4)), graph.tensor("last", (1, 4))
    graph.op("ADD", [a, b], [first], options="AddOptions")
    graph.op("MUL", [a, b], [last], options="MulOptions")
    model = graph.ends([a, b], [first, last]).as_model()
    turned = reorder(model, inputs=["b", "a"], outputs=["last", "first"])
    assert [tensor.name for tensor in (*turned.inputs, *turned.outputs)] == ["b", "a", "last", "first"]
    only_inputs = reorder(model, inputs=["b", "a"], outputs=["first", "last"])
    assert [tensor.name for tensor in (*only_inputs.inputs, *only_inputs.outputs)] == [
        "b",
        "a",
        "first",
        "last",
    ]
    assert reorder(model, inputs=["a", "b"], outputs=["first", "last"]) is model
    assert reorder(model, inputs=["a", "c"], outputs=["x", "y"]) is model
