"""Operations in int16 inside an int8 model: chosen for normalizations, or named."""

from __future__ import annotations

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
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization import int16_regions  # noqa: E402
from edgeq_converters.quantization.integer import quantize_activations  # noqa: E402
from edgeq_converters.recipe import Recipe, Switch  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net, quiet  # noqa: E402

WIDTH = 8


def normalized() -> Model:
    """Return dense -> layer normalization as Keras 3 writes it -> dense."""
    random = np.random.default_rng(4)
    graph = Graph()
    x = graph.tensor("x", (1, WIDTH))

    def dense(source: int, name: str) -> int:
        weights = graph.tensor(f"{name}.w", (WIDTH, WIDTH), values=random.normal(size=(WIDTH, WIDTH)) / 3)
        bias = graph.tensor(f"{name}.b", (WIDTH,), values=random.normal(size=WIDTH) / 5)
        out = graph.tensor(name, (1, WIDTH))
        graph.op("FULLY_CONNECTED", [source, weights, bias], [out], options="FullyConnectedOptions")
        return out

    def op(kind: str, inputs: list[int], name: str, width: int = WIDTH) -> int:
        out = graph.tensor(name, (1, width))
        graph.op(kind, inputs, [out])
        return out

    def mean(source: int, name: str) -> int:
        axes = graph.tensor(f"{name}.axes", (1,), dtype=np.int32, values=[1])
        out = graph.tensor(name, (1, 1))
        graph.op("MEAN", [source, axes], [out], options="ReducerOptions", keepDims=True)
        return out

    first = dense(x, "first")
    middle = mean(first, "mean")
    variance = mean(op("SQUARED_DIFFERENCE", [first, middle], "squared"), "variance")
    epsilon = graph.tensor("epsilon", (), values=1e-3)
    root = op("RSQRT", [op("ADD", [variance, epsilon], "added", 1)], "root", 1)
    scale = op(
        "MUL", [root, graph.tensor("gamma", (1, WIDTH), values=random.uniform(0.5, 2, WIDTH))], "scale"
    )
    shift = op("MUL", [op("NEG", [middle], "negative", 1), scale], "shift")
    beta = graph.tensor("beta", (1, WIDTH), values=random.normal(size=WIDTH))
    offset = op("ADD", [shift, beta], "offset")
    end = op("ADD", [op("MUL", [first, scale], "scaled"), offset], "normalized")
    return prepared(graph.ends([x], [dense(end, "y")]).as_model("normalized"))


def magnitude(form: str) -> Model:
    """Return the root of a sum of squares."""
    graph = Graph()
    x = graph.tensor("x", (1, WIDTH))

    def op(kind: str, inputs: list[int], name: str, width: int, **options: object) -> int:
        out = graph.tensor(name, (1, width))
        graph.op(kind, inputs, [out], **options)
        return out

    last = WIDTH
    if form == "parts":
        halves = [graph.tensor(f"half{n}", (1, WIDTH // 2)) for n in range(2)]
        axis = graph.tensor("axis", (), dtype=np.int32, values=1)
        graph.op("SPLIT", [axis, x], halves, options="SplitOptions", numSplits=2)
        last = WIDTH // 2
        total = op("ADD", [op("MUL", [half] * 2, f"square{half}", last) for half in halves], "total", last)
    elif form == "alone":
        total = op("SQUARE", [x], "square", last)
    else:
        axes = graph.tensor("axes", (1,), dtype=np.int32, values=[1])
        last, square = 1, op("SQUARE", [x], "square", WIDTH)
        total = op(form, [square, axes], "total", 1, options="ReducerOptions", keepDims=True)
        if form == "SUM":
            total = op("ADD", [total, graph.tensor("epsilon", (), values=1e-4)], "kept", 1)
        else:
            total = op("MAXIMUM", [graph.tensor("least", (1,), values=[1e-4]), total], "kept", 1)
    return prepared(graph.ends([x], [op("SQRT", [total], "y", last)]).as_model(form))


def samples(model: Model, count: int = 120, seed: int = 1) -> Samples:
    # The size of a sample varies by a factor of 40, and with it the variance by 1600.
    random = np.random.default_rng(seed)
    size = np.exp(random.uniform(np.log(0.1), np.log(4.0), size=(count, 1)))
    return Samples(
        inputs=model.inputs, arrays=((random.normal(size=(count, WIDTH)) * size).astype(np.float32),)
    )


def made(model: Model, given: Samples, scheme: Scheme = Scheme.INT8, **keys: object) -> Model:
    recipe = Recipe.from_dict(
        {
            "schema": "edgeq.recipe/1",
            "scheme": scheme,
            "calibrator": "minmax",
            "bias_correction": "off",
            "equalization": "off",
            **keys,
        }
    )
    recipe.check()
    return quantize_activations(
        model, recipe=recipe, samples=given, histograms=None, step=lambda what, total: quiet
    ).model


def in_int16(model: Model) -> list[str]:
    """Return the kinds of the operations with int16 outputs, without conversions."""
    return [
        tflite_file.op_name(model.parsed, operator)
        for operator in model.graph.operators
        if tflite_file.type_name(model.graph.tensors[operator.outputs[0]]) == "INT16"
        and tflite_file.op_name(model.parsed, operator) != "QUANTIZE"
    ]


def output_db(floating: Model, integer: Model, given: Samples) -> float:
    (reference,) = run_samples(floating, given, advance=quiet)
    (values,) = run_samples(integer, given, advance=quiet)
    return sqnr_db([to_real(values, integer.outputs[0])], [reference])


@pytest.mark.parametrize("form", ["parts", "alone", "SUM", "MEAN"])
def test_the_squares_of_a_magnitude_are_int16(form: str) -> None:
    model = magnitude(form)
    given, others = samples(model), samples(model, seed=2)
    chosen, plain = made(model, given), made(model, given, int16_ops=[])
    assert {"MUL", "SQRT"} <= set(in_int16(chosen))
    assert in_int16(plain) == []
    assert output_db(model, chosen, others) > output_db(model, plain, others) + 5


def test_a_root_of_other_products_stays_int8() -> None:
    graph = Graph()
    x, product, y = (graph.tensor(name, (1, WIDTH)) for name in ("x", "product", "y"))
    gain = graph.tensor("gain", (1, WIDTH), values=np.full(WIDTH, 2.0))
    graph.op("MUL", [x, gain], [product])
    graph.op("SQRT", [product], [y])
    model = graph.ends([x], [y]).as_model()
    assert int16_regions.operations(model, Recipe(scheme=Scheme.INT8)) == frozenset()


def test_the_statistics_of_a_normalization_are_int16_and_nothing_else() -> None:
    model = normalized()
    integer = made(model, samples(model))
    kinds = {
        tflite_file.type_name(integer.graph.tensors[i])
        for each in integer.graph.operators
        for i in each.outputs
    }
    assert kinds == {"INT8", "INT16"}
    assert sorted(in_int16(integer)) == ["ADD", "MEAN", "MUL", "MUL", "RSQRT", "SUB"]


def test_they_are_worth_it() -> None:
    model = normalized()
    given, others = samples(model), samples(model, seed=2)
    narrow = output_db(model, made(model, given, int16_ops=[]), others)
    wide = output_db(model, made(model, given), others)
    assert wide > narrow + 3


def test_root_mean_square_normalization_has_them_too() -> None:
    graph = Graph()
    x = graph.tensor("x", (1, WIDTH))
    squared, variance, added, root, y = (
        graph.tensor(name, (1, width)) for name, width in zip("svary", (WIDTH, 1, 1, 1, WIDTH), strict=True)
    )
    graph.op("SQUARE", [x], [squared])
    axes = graph.tensor("axes", (1,), dtype=np.int32, values=[1])
    graph.op("MEAN", [squared, axes], [variance], options="ReducerOptions", keepDims=True)
    graph.op("ADD", [variance, graph.tensor("epsilon", (), values=1e-3)], [added])
    graph.op("RSQRT", [added], [root])
    graph.op("MUL", [x, root], [y])
    model = prepared(graph.ends([x], [y]).as_model())
    assert int16_regions.operations(model, Recipe(scheme=Scheme.INT8)) == {"s", "v", "a", "r", "y"}


def test_a_root_of_anything_else_stays_int8() -> None:
    graph = Graph()
    x, added, y = (graph.tensor(name, (1, WIDTH)) for name in "xay")
    graph.op("ADD", [x, graph.tensor("c", (), values=4.0)], [added])
    graph.op("RSQRT", [added], [y])
    model = prepared(graph.ends([x], [y]).as_model())
    assert int16_regions.operations(model, Recipe(scheme=Scheme.INT8)) == frozenset()


def test_only_named_operations_are_int16_where_names_are_given() -> None:
    model = normalized()
    assert in_int16(made(model, samples(model), int16_ops=["first"])) == ["FULLY_CONNECTED"]


def test_other_models_and_schemes_have_none() -> None:
    assert int16_regions.operations(prepared(net()), Recipe(scheme=Scheme.INT8)) == frozenset()
    model = normalized()
    assert int16_regions.operations(model, Recipe(scheme=Scheme.INT16X8)) == frozenset()


def test_float_operations_stay_float() -> None:
    model = normalized()
    integer = made(model, samples(model), Scheme.INT8_MIXED, float_ops=["root"])
    assert "RSQRT" not in in_int16(integer)
    kinds = {
        tflite_file.op_name(integer.parsed, each): tflite_file.type_name(
            integer.graph.tensors[each.outputs[0]]
        )
        for each in integer.graph.operators
    }
    assert kinds["RSQRT"] == "FLOAT32"


def test_an_unknown_name_is_refused() -> None:
    model = normalized()
    with pytest.raises(ConverterError, match="int16_ops names") as caught:
        made(model, samples(model), int16_ops=["frist"])
    assert caught.value.code == "EQ330"
    assert "'first'" in str(caught.value)


def test_the_scheme_must_have_int8_activations() -> None:
    with pytest.raises(ValueError, match="int16_ops: only int8, int8-mixed, int4 have them, not dynamic"):
        Recipe(scheme=Scheme.DYNAMIC, int16_ops=("x",)).check()


def test_the_correction_keeps_them() -> None:
    model = normalized()
    given = samples(model)
    corrected = made(model, given, bias_correction=Switch.ON)
    assert sorted(in_int16(corrected)) == sorted(in_int16(made(model, given)))
