"""More bits in the last operations where a slice of an output stays poor, measured within a latency limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples, to_real  # noqa: E402
from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import output_sqnr  # noqa: E402
from edgeq_converters.quantization import tails  # noqa: E402
from edgeq_converters.quantization.columns import NO_SIZES  # noqa: E402
from edgeq_converters.quantization.integer import quantize_activations  # noqa: E402
from edgeq_converters.quantization.quantize import Quantized  # noqa: E402
from edgeq_converters.recipe import Recipe, Tail  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402
from .test_columns import recipe_of  # noqa: E402

SIDE, DEPTH = 24, 24


def net(kind: str, sizes: Sequence[float], *, layers: int = 1) -> Model:
    """Return a network whose columns differ in size in a way that no division of weights levels.

    Args:
        kind: `bounded`, by a ReLU6 in the last layer; `squared`, by the square of what it computes.
        layers: 3x3 convolutions between the first layer and the last.
    """
    random = np.random.default_rng(0)
    graph = Graph()
    x = graph.tensor("x", (1, SIDE, SIDE, 3))

    def conv(name: str, source: int, depth: int, scale: Sequence[float], kernel: int, activation: int) -> int:
        shape = (len(scale), kernel, kernel, depth)
        spread = np.sqrt(2 / (kernel * kernel * depth)) * np.asarray(scale)
        weights = random.normal(size=shape) * spread[:, None, None, None]
        w, b = (
            graph.tensor(f"{name}.w", shape, values=weights),
            graph.tensor(f"{name}.b", (len(scale),), values=0.2 * np.asarray(scale)),
        )
        out = graph.tensor(name, (1, SIDE, SIDE, len(scale)))
        options = {"strideH": 1, "strideW": 1, "fusedActivationFunction": activation}
        graph.op("CONV_2D", (source, w, b), (out,), options="Conv2DOptions", **options)
        return out

    body = conv("first", x, 3, [1.0] * DEPTH, 3, 1)
    for number in range(layers):
        body = conv(f"body{number or ''}", body, DEPTH, [1.0] * DEPTH, 3, 1)
    if kind == "bounded":
        out = conv("out", body, DEPTH, sizes, 1, 3)
    else:
        raw, out = conv("raw", body, DEPTH, sizes, 1, 0), graph.tensor("out", (1, SIDE, SIDE, len(sizes)))
        graph.op("MUL", (raw, raw), (out,), options="MulOptions")
    return prepared(graph.ends([x], [out]).as_model(kind))


def samples(model: Model, count: int = 24, seed: int = 1) -> Samples:
    values = np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, 3)).astype(np.float32)
    return Samples(inputs=model.inputs, arrays=(values,))


def made(model: Model, recipe: Recipe) -> Quantized:
    return quantize_activations(
        model, recipe=recipe, samples=samples(model), histograms=None, step=lambda what, total: quiet
    )


def worst_db(model: Model, integer: Model) -> float:
    (expected,) = run_samples(model, samples(model, seed=9), advance=quiet)
    (got,) = run_samples(integer, samples(model, seed=9), advance=quiet)
    return output_sqnr("out", to_real(got, integer.outputs[0]), expected).worst_db


def types(model: Model, kind: str) -> list[str]:
    """Return the types of the results of all operations of a kind."""
    return [
        tflite_file.type_name(model.graph.tensors[int(operator.outputs[0])])
        for operator in model.graph.operators
        if tflite_file.op_name(model.parsed, operator) == kind
    ]


SQUARED = net("squared", (4.0, 2.7, 1.9))
BOUNDED = net("bounded", (5.0, 0.5, 0.02))
EVEN = net("bounded", (1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def _any_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no measured time decide: a busy machine may be slow."""
    monkeypatch.setattr(tails, "SLOWEST", 1e9)


def without_tail_db(model: Model, recipe: Recipe) -> float:
    return worst_db(model, made(model, replace(recipe, tail=Tail())).model)


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "keys", [{}, {"calibrator": "auto", "bias_correction": "auto"}], ids=["plain", "auto"]
)
def test_an_int16_tail_keeps_int8_full_integer(keys: dict[str, Any]) -> None:
    recipe = recipe_of("float32", **keys)
    quantized = made(SQUARED, recipe)
    assert quantized.tail == Tail(type="int16", ops=("out",))
    assert types(quantized.model, "MUL") == ["INT16"]
    assert set(types(quantized.model, "CONV_2D")) == {"INT8"}
    assert worst_db(SQUARED, quantized.model) > without_tail_db(SQUARED, recipe) + 10
    (note,) = [note for note in quantized.notes if "in the worst slice" in note]
    assert note.startswith("int16 in the last `out`: ")
    assert "times the latency on this machine" in note
    assert (quantized.claim is None) == (not keys)
    # The recipe with this tail gives the same bytes, whatever the machine is.
    assert made(SQUARED, replace(recipe, tail=quantized.tail)).model.data == quantized.model.data


def test_float_tails_are_for_mixed_models_only() -> None:
    recipe = recipe_of("float32", scheme="int8-mixed")
    quantized = made(BOUNDED, recipe)
    assert quantized.tail is not None
    assert quantized.tail.ops == ("out",)
    assert worst_db(BOUNDED, quantized.model) > without_tail_db(BOUNDED, recipe) + 10
    strict = made(BOUNDED, recipe_of("float32"))
    assert strict.tail is None or strict.tail.type == "int16"
    assert "FLOAT32" not in types(strict.model, "CONV_2D")


def test_a_tail_that_is_too_slow_is_reported_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "SLOWEST", 0.0)
    quantized = made(SQUARED, recipe_of("float32"))
    assert quantized.tail == Tail()
    assert types(quantized.model, "MUL") == ["INT8"]
    (note,) = [note for note in quantized.notes if "more bits in the last operations were tried" in note]
    assert "int16 in the last `out` would gain" in note
    assert note.endswith("is not used")


def hard_swished() -> Model:
    """Return a network that ends in an operation without a 16-bit form."""
    graph = Graph()
    x, y = (graph.tensor(name, (1, SIDE, SIDE, 3)) for name in ("x", "y"))
    out = graph.tensor("out", (1, SIDE, SIDE, 3))
    graph.op("MUL", (x, x), (y,), options="MulOptions")
    graph.op("HARD_SWISH", (y,), (out,), options=None)
    return prepared(graph.ends([x], [out]).as_model("hard"))


def test_a_tail_that_fails_is_noted_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "GOAL_DB", 200.0)  # every slice is poor
    quantized = made(hard_swished(), recipe_of("float32"))
    assert quantized.tail is None
    (note,) = [note for note in quantized.notes if "more bits in the last operations" in note]
    assert note == (
        "more bits in the last operations: no int16 in the last 2 operations from `y`:"
        " litert-quantizer has no 16-bit form of HARD_SWISH"
    )


def test_an_operation_that_is_named_for_int16_without_such_a_form_is_refused() -> None:
    with pytest.raises(ConverterError, match="no 16-bit form of HARD_SWISH") as caught:
        made(hard_swished(), recipe_of("float32", int16_ops=["out"]))
    assert caught.value.code == "EQ308"


def test_layers_with_many_multiplications_are_not_tried_in_int16() -> None:
    tried: dict[str, dict[str, int]] = {}
    model = net("squared", [1, 1 / 40], layers=4)
    for scheme in ("int8", "int8-mixed"):
        steps = tried.setdefault(scheme, {})
        quantize_activations(
            model,
            recipe=recipe_of("float32", scheme=scheme),
            samples=samples(model),
            histograms=None,
            step=lambda what, total, steps=steps: steps.setdefault(what, total) and quiet,  # type: ignore[misc]
        )
    what = "try more bits in the last operations"
    # The square and the layer before it; the convolution before them would take several times as long.
    assert tried["int8"][what] == 1 + 2
    assert tried["int8-mixed"][what] > 1 + 2 * 2


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (EVEN, {}),  # nothing is poor
        (SQUARED, {"io": "int8"}),  # the output has 8 bits
        (SQUARED, {"effort": "quick"}),
        (SQUARED, {"int16_ops": []}),  # `--int16 none`
        (SQUARED, {"scheme": "int16x8"}),
        (SQUARED, {"scheme": "int4", "int4_sqnr_db": 0.0}),  # every layer adds noise
    ],
    ids=["good", "int8 output", "quick", "named", "16 bits", "4 bits"],
)
def test_nothing_is_tried_where_it_cannot_help_or_was_decided(model: Model, keys: dict[str, Any]) -> None:
    quantized = made(model, recipe_of(**{"io": "float32", **keys}))
    assert quantized.tail is None
    assert not [note for note in quantized.notes if "last operations" in note]


def test_nothing_is_tried_for_a_quantizer_without_int16_inside_int8() -> None:
    def make(recipe: Recipe, correct: bool) -> Quantized:
        raise AssertionError(f"{recipe.scheme} was quantized again, corrected: {correct}")

    poor = made(SQUARED, recipe_of("float32", tail={"type": "int16", "ops": []}))
    made_once = replace(poor, backend="tensorflow")
    arguments: dict[str, Any] = {
        "model": SQUARED,
        "samples": samples(SQUARED),
        "sizes": NO_SIZES,
        "make": make,
    }
    same = tails.improved(made_once, recipe=recipe_of("float32"), step=lambda what, total: quiet, **arguments)
    assert same is made_once


def test_tails_grow_from_the_output_layer_by_layer() -> None:
    assert tails.operations_behind(SQUARED, [0], depth=0) == ("out",)
    assert tails.operations_behind(SQUARED, [0], depth=1) == ("raw", "out")
    assert tails.operations_behind(SQUARED, [0], depth=2) == ("body", "raw", "out")
    assert tails.operations_behind(BOUNDED, [0], depth=0) == ()


def test_a_tail_of_another_model_is_refused() -> None:
    with pytest.raises(ConverterError, match="'nothing', which tail names") as caught:
        made(SQUARED, recipe_of("float32", tail={"type": "int16", "ops": ["nothing"]}))
    assert caught.value.code == "EQ330"


@pytest.mark.parametrize(
    ("scheme", "value", "message"),
    [
        ("int8", {"type": "int4", "ops": []}, "tail: expected"),
        ("int8", {"type": "int16", "ops": [3]}, "tail: expected"),
        ("int8", ["out"], "tail: expected"),
        ("int8", {"type": "float32", "ops": ["out"]}, "tail: only the scheme int8-mixed has one in float32"),
        ("int16x8", {"type": "int16", "ops": ["out"]}, "tail: only int8, int8-mixed, int4 have one"),
    ],
)
def test_a_recipe_with_a_wrong_tail_is_refused(scheme: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of("float32", scheme=scheme, tail=value).check()
