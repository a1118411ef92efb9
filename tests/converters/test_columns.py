"""Outputs whose columns differ much in size, computed by layers alone: each column keeps its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples, to_real  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import output_sqnr, sqnr_db  # noqa: E402
from edgeq_converters.quantization import columns, integer_io  # noqa: E402
from edgeq_converters.quantization.integer import quantize_activations  # noqa: E402
from edgeq_converters.quantization.quantize import Quantized  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sensitivity import usefulness  # noqa: E402
from edgeq_converters.values import Caution  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402

SIZES = (300.0, 1.0, 20.0, 0.05)
SIDE, DEPTH = 4, 3
PLAIN = {"calibrator": "minmax", "bias_correction": "off", "equalization": "off"}


def head(kind: str, sizes: Sequence[float] = SIZES, *, activation: int = 0, seed: int = 0) -> Model:
    """Return a detector's head on 4x4x3 inputs, whose columns have these sizes.

    Args:
        kind: `dense`, `conv`, `anchors` (two in the channels), `levels` (two joined along the positions),
            `joined` (two layers joined along the columns), `transposed`, `decoded`, `times`, `sigmoid`,
            `sum`, `relu`, `resized`, or `beside-sigmoid`; with the columns on axis 1 (`AXES`): `front`,
            `rows`, `stacked`, `decoded rows`, or `rows beside-sigmoid`.
        activation: of the last layers, as the schema numbers it.
    """
    random = np.random.default_rng(seed)
    graph, count = Graph(), len(sizes)
    x = graph.tensor("x", (1, SIDE, SIDE, DEPTH))

    def conv(name: str, own: Sequence[float], stride: int = 1, repeat: int = 1) -> int:
        scale = np.tile(own, repeat)
        shape = (len(scale), 3, 3, DEPTH)
        weights = random.normal(size=shape) / 5 * scale[:, None, None, None]
        bias = graph.tensor(f"{name}.b", (len(scale),), values=random.normal(size=len(scale)) / 9 * scale)
        side = SIDE // stride
        out = graph.tensor(name, (1, side, side, len(scale)))
        w = graph.tensor(f"{name}.w", shape, values=weights)
        options = {"strideH": stride, "strideW": stride, "fusedActivationFunction": activation}
        graph.op("CONV_2D", (x, w, bias), (out,), options="Conv2DOptions", **options)
        return out

    def reshape(name: str, source: int, shape: tuple[int, ...]) -> int:
        to = graph.tensor(f"{name}.to", (len(shape),), dtype=np.int32, values=shape)
        out = graph.tensor(name, shape)
        graph.op("RESHAPE", (source, to), (out,), options="ReshapeOptions", newShape=list(shape))
        return out

    def joined(parts: Sequence[int], shape: tuple[int, ...], axis: int) -> int:
        out = graph.tensor("out", shape)
        graph.op("CONCATENATION", parts, (out,), options="ConcatenationOptions", axis=axis)
        return out

    places = SIDE * SIDE
    if kind == "dense":
        values = random.normal(size=(places * count, places * DEPTH)) * np.tile(sizes, places)[:, None] / 7
        w = graph.tensor("w", values.shape, values=values)
        flat = graph.tensor("flat", (1, places * count))
        graph.op(
            "FULLY_CONNECTED",
            (reshape("row", x, (1, places * DEPTH)), w),
            (flat,),
            options="FullyConnectedOptions",
        )
        out = reshape("out", flat, (1, places, count))
    elif kind == "conv":
        out = conv("out", sizes)
    elif kind == "anchors":
        out = reshape("out", conv("c", sizes, repeat=2), (1, 2 * places, count))
    elif kind == "levels":
        fine = reshape("fine", conv("c", sizes, repeat=2), (1, 2 * places, count))
        coarse = reshape("coarse", conv("d", sizes, stride=2), (1, places // 4, count))
        out = joined((fine, coarse), (1, 2 * places + places // 4, count), 1)
    elif kind == "joined":
        parts = (conv("c", sizes[:1]), conv("d", sizes[1:]))
        out = reshape("rows", joined(parts, (1, SIDE, SIDE, count), 3), (1, places, count))
    elif kind == "decoded":  # raw values times a vector, on anchors
        raw, size = conv("c", [1.0] * count), graph.tensor("size", (count,), values=sizes)
        scaled, out = (
            graph.tensor("scaled", (1, SIDE, SIDE, count)),
            graph.tensor("out", (1, SIDE, SIDE, count)),
        )
        graph.op("MUL", (raw, size), (scaled,), options="MulOptions")
        values = random.normal(size=(1, SIDE, SIDE, count)) * sizes
        anchors = graph.tensor("anchors", (1, SIDE, SIDE, count), values=values)
        graph.op("ADD", (scaled, anchors), (out,), options="AddOptions")
    elif kind == "times":  # a layer whose columns differ, times one number
        out = graph.tensor("out", (1, SIDE, SIDE, count))
        number = graph.tensor("number", (), values=0.1)
        graph.op("MUL", (number, conv("c", sizes)), (out,), options="MulOptions")
    elif kind == "sigmoid":  # values from 0 to 1 times a vector
        unit, out = graph.tensor("unit", (1, SIDE, SIDE, count)), graph.tensor("out", (1, SIDE, SIDE, count))
        graph.op("LOGISTIC", (conv("c", [3.0] * count),), (unit,))
        graph.op("MUL", (unit, graph.tensor("size", (count,), values=sizes)), (out,), options="MulOptions")
    elif kind == "sum":  # of two layers
        first, second = reshape("rows1", conv("c", sizes), (1, places, count)), conv("d", sizes)
        out = graph.tensor("out", (1, places, count))
        graph.op("SUB", (first, reshape("rows2", second, (1, places, count))), (out,), options="SubOptions")
    elif kind == "relu":
        out = graph.tensor("out", (1, SIDE, SIDE, count))
        graph.op("RELU", (conv("c", sizes),), (out,))
    elif kind == "transposed":
        order = graph.tensor("order", (4,), dtype=np.int32, values=[0, 2, 1, 3])
        out = graph.tensor("out", (1, SIDE, SIDE, count))
        graph.op("TRANSPOSE", (conv("c", sizes), order), (out,), options="TransposeOptions")
    elif kind == "front":
        order = graph.tensor("order", (4,), dtype=np.int32, values=[0, 3, 1, 2])
        out = graph.tensor("out", (1, count, SIDE, SIDE))
        graph.op("TRANSPOSE", (conv("c", sizes), order), (out,), options="TransposeOptions")
    elif kind == "resized":
        out, to = (
            graph.tensor("out", (1, 8, 8, count)),
            graph.tensor("to", (2,), dtype=np.int32, values=[8, 8]),
        )
        graph.op("RESIZE_BILINEAR", (conv("c", sizes), to), (out,), options="ResizeBilinearOptions")
    elif kind == "stacked":  # one layer for each column, joined along a new axis
        each = tuple(reshape(f"s{i}", conv(f"c{i}", [size]), (1, places)) for i, size in enumerate(sizes))
        out = graph.tensor("out", (1, count, places))
        graph.op("PACK", each, (out,), options="PackOptions", axis=1, valuesCount=count)
    elif kind in {"rows", "decoded rows", "rows beside-sigmoid"}:
        order = graph.tensor("order", (3,), dtype=np.int32, values=[0, 2, 1])
        raw = reshape("raw", conv("c", sizes), (1, places, count))
        rows = graph.tensor("out" if kind == "rows" else "turned", (1, count, places))
        graph.op("TRANSPOSE", (raw, order), (rows,), options="TransposeOptions")
        if kind == "rows":
            out = rows
        elif kind == "decoded rows":  # as a detector that adds anchors and multiplies by strides does
            values = random.normal(size=(1, count, places)) * np.array(sizes)[None, :, None]
            moved, out = (graph.tensor(name, (1, count, places)) for name in ("moved", "out"))
            graph.op(
                "ADD",
                (rows, graph.tensor("anchors", values.shape, values=values)),
                (moved,),
                options="AddOptions",
            )
            strides = graph.tensor("strides", (1, places), values=np.repeat([1.0, 2.0], places // 2)[None])
            graph.op("MUL", (moved, strides), (out,), options="MulOptions")
        else:
            scores = graph.tensor("scores", (1, 2, places))
            graph.op("LOGISTIC", (reshape("d2", conv("d", (2.0, 2.0)), (1, 2, places)),), (scores,))
            out = joined((rows, scores), (1, count + 2, places), 1)
    else:
        scores = graph.tensor("scores", (1, SIDE, SIDE, 2))
        graph.op("LOGISTIC", (conv("d", (2.0, 2.0)),), (scores,))
        out = joined((conv("c", sizes), scores), (1, SIDE, SIDE, count + 2), -1)
    return prepared(graph.ends([x], [out]).as_model(kind))


KINDS = (
    *("dense", "conv", "anchors", "levels", "joined", "transposed"),
    *("decoded", "times", "sigmoid", "sum", "relu", "front", "rows", "stacked", "decoded rows", "resized"),
    *("beside-sigmoid", "rows beside-sigmoid"),
)
AXES = dict.fromkeys(("front", "rows", "stacked", "decoded rows", "rows beside-sigmoid"), 1)
"""Of the columns, where that is not the last axis."""


def samples(model: Model, count: int = 60, seed: int = 1) -> Samples:
    values = np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, DEPTH)).astype(np.float32)
    return Samples(inputs=model.inputs, arrays=(values,))


def recipe_of(io: str = "int8", **keys: Any) -> Recipe:
    return Recipe.from_dict({"schema": "edgeq.recipe/1", "scheme": "int8", "io": io, **PLAIN, **keys})


def made(model: Model, recipe: Recipe) -> tuple[Model, Quantized]:
    quantized = quantize_activations(
        model, recipe=recipe, samples=samples(model), histograms=None, step=lambda what, total: quiet
    )
    integer = quantized.model
    return integer if recipe.core_io == "float32" else integer_io.with_types(integer, recipe.types), quantized


def real(model: Model, seed: int = 9) -> np.ndarray:
    (raw,) = run_samples(model, samples(model, seed=seed), advance=quiet)
    return to_real(raw, model.outputs[0])


def worst_db(model: Model, integer: Model) -> float:
    axis = AXES.get(model.subject, len(model.outputs[0].shape) - 1)
    return output_sqnr("out", real(integer), real(model), axis=axis).worst_db


@pytest.mark.first_is_quick
@pytest.mark.parametrize("io", ["int8", "float32", "int8,float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_column_keeps_its_steps(kind: str, io: str) -> None:
    model = head(kind)
    integer, quantized = made(model, recipe_of(io))
    # The sum has two roundings, and ReLU leaves little of some columns.
    assert worst_db(model, integer) > (20 if kind in {"sum", "relu"} else 30)
    assert [info.shape for info in integer.outputs] == [info.shape for info in model.outputs]
    slices = integer.outputs[0].slices
    assert (slices is not None) == (io == "int8")
    assert slices is None or slices.axis == AXES.get(kind, len(model.outputs[0].shape) - 1)
    assert [note for note in quantized.notes if "columns of output" in note]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS[:-2]),
    sizes=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6),
    seed=st.integers(0, 9),
)
def test_a_levelled_model_times_the_sizes_is_the_model(kind: str, sizes: list[float], seed: int) -> None:
    model = head(kind, sizes, seed=seed)
    levelled = columns.level(model, samples(model), recipe_of())
    (restored,) = levelled.sizes.restored([real(levelled.model)])
    assert sqnr_db([restored], [real(model)]) > 100
    if levelled.sizes.by_position:
        values = np.abs(real(levelled.model, seed=1))
        largest = np.moveaxis(values, AXES.get(kind, -1), -1).reshape(-1, len(sizes)).max(axis=0)
        assert largest.max() / largest.min() < 1.001


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (head("conv", (2.0, 1.0, 1.5, 0.9)), {}),  # of one size
        (head("conv", activation=3), {}),  # ReLU6: a bound of its own
        (head("conv"), {"scheme": "int16x8", "io": "int16"}),  # has the steps
        (head("anchors"), {"scheme": "int8-mixed", "io": "float32", "float_ops": ["c"]}),
        (head("conv"), {"ranges": [["out", -300.0, 300.0]]}),  # learned for the output as it is
    ],
    ids=["even", "activation", "int16", "named", "learned"],
)
def test_what_stays_as_it_is(model: Model, keys: dict[str, Any]) -> None:
    levelled = columns.level(model, samples(model), recipe_of(**keys))
    assert levelled.model is model
    assert levelled.notes == ()


def test_uint8_outputs_share_a_scale_with_a_warning() -> None:
    model = head("conv")
    integer, quantized = made(model, recipe_of("uint8"))
    assert integer.outputs[0].scale is not None
    assert [note for note in quantized.notes if isinstance(note, Caution) and "--io int8" in note]


@pytest.mark.slow
@pytest.mark.parametrize("io", ["int8", "float32"])
def test_the_claim_is_in_the_units_of_the_model(io: str) -> None:
    model = head("levels", (300.0, 1.0, 20.0, 0.05))
    auto: dict[str, Any] = {"calibrator": "auto", "bias_correction": "auto", "equalization": "auto"}
    integer, quantized = made(model, recipe_of(io, **auto))
    assert quantized.claim is not None
    reached = sqnr_db([real(integer)], [real(model)])
    assert quantized.claim.low_db - 1 < reached < quantized.claim.high_db + 1
    assert worst_db(model, integer) > 30


@pytest.mark.parametrize("kind", ["conv", "levels"])
def test_a_layer_that_stayed_float_is_multiplied_by_the_sizes(kind: str) -> None:
    model = head(kind)
    levelled = columns.level(model, samples(model), recipe_of())
    restored = columns.with_column_scales(levelled.model, levelled.sizes)
    assert [info.name for info in restored.outputs] == ["out"]
    assert sqnr_db([real(restored)], [real(model)]) > 100


@pytest.mark.parametrize(("io", "count"), [("int8", 0), ("uint8", 1)])
def test_a_poor_slice_is_named(io: str, count: int) -> None:
    model = head("conv", (300.0, 1.0, 20.0, 5.0))
    integer, _ = made(model, recipe_of(io))
    cautions = usefulness.poor_outputs(model, integer, samples(model))
    assert len(cautions) == count
    assert all("slice 1 of output `out`" in each and "--int16 head" in each for each in cautions)
