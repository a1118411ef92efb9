"""Outputs whose parts differ much in size: each part keeps its steps, and the interface stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.data.samples import Samples, to_real  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization import integer_io, slices  # noqa: E402
from edgeq_converters.quantization.integer import quantize_activations  # noqa: E402
from edgeq_converters.quantization.quantize import Quantized  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sensitivity import usefulness  # noqa: E402
from edgeq_converters.values import Caution  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402

ANCHORS, WIDTH = 6, 8


def detector(
    *, pixels: float = 640.0, kind: str = "CONCATENATION", axis: int = 2, shared: bool = False
) -> Model:
    """Return a model with one output: boxes up to `pixels` and scores up to 1, joined along an axis."""
    random = np.random.default_rng(2)
    graph = Graph()
    x = graph.tensor("x", (1, WIDTH))

    def branch(name: str, columns: int) -> int:
        count = ANCHORS * columns
        weights = graph.tensor(f"{name}.w", (count, WIDTH), values=random.normal(size=(count, WIDTH)) / 2)
        flat = graph.tensor(f"{name}.flat", (1, count))
        bias = graph.tensor(f"{name}.b", (count,), values=random.normal(size=count) - 1)
        graph.op("FULLY_CONNECTED", [x, weights, bias], [flat], options="FullyConnectedOptions")
        sizes = graph.tensor(f"{name}.sizes", (3,), dtype=np.int32, values=[1, ANCHORS, columns])
        shaped, out = (graph.tensor(f"{name}{end}", (1, ANCHORS, columns)) for end in (".shaped", ""))
        graph.op("RESHAPE", [flat, sizes], [shaped], options="ReshapeOptions")
        graph.op("LOGISTIC", [shaped], [out])
        return out

    columns = 4 if axis == 2 and kind == "CONCATENATION" else 3
    unit, scores = branch("unit", columns), branch("scores", 3)
    boxes = graph.tensor("boxes", (1, ANCHORS, columns))
    graph.op("MUL", [unit, graph.tensor("pixels", (), values=pixels)], [boxes])
    if kind == "PACK":
        out = graph.tensor("out", (1, ANCHORS, 2, 3))
        graph.op("PACK", [boxes, scores], [out], options="PackOptions", axis=2, valuesCount=2)
    else:
        shape = (1, 2 * ANCHORS, 3) if axis == 1 else (1, ANCHORS, columns + 3)
        out = graph.tensor("out", shape)
        graph.op(
            "CONCATENATION",
            [boxes, scores],
            [out],
            options="ConcatenationOptions",
            axis=axis if axis == 1 else -1,
        )
    return prepared(graph.ends([x], [out, boxes] if shared else [out]).as_model("detector"))


def samples(model: Model, count: int = 60, seed: int = 1) -> Samples:
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return Samples(inputs=model.inputs, arrays=(values,))


def made(model: Model, io: str = "int8", **keys: object) -> tuple[Model, Quantized]:
    plain = {"calibrator": "minmax", "bias_correction": "off", "equalization": "off"}
    recipe = Recipe.from_dict({"schema": "edgeq.recipe/1", "scheme": "int8", "io": io, **plain, **keys})
    quantized = quantize_activations(
        model, recipe=recipe, samples=samples(model), histograms=None, step=lambda what, total: quiet
    )
    integer = quantized.model
    return integer if recipe.core_io == "float32" else integer_io.with_types(integer, recipe.types), quantized


def parts_db(model: Model, integer: Model, parts: Callable[[np.ndarray], list[np.ndarray]]) -> list[float]:
    (reference,) = run_samples(model, samples(model, seed=9), advance=quiet)
    raw, *_ = run_samples(integer, samples(integer, seed=9), advance=quiet)
    values = to_real(raw, integer.outputs[0])
    return [sqnr_db([own], [other]) for own, other in zip(parts(values), parts(reference), strict=True)]


def of_columns(values: np.ndarray) -> list[np.ndarray]:
    return [values[..., :4], values[..., 4:]]


def kinds(model: Model) -> list[str]:
    return [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]


def float_results(model: Model) -> list[str]:
    """Return the kinds of the operations that compute float values."""
    return [
        tflite_file.op_name(model.parsed, operator)
        for operator in model.graph.operators
        if tflite_file.type_name(model.graph.tensors[operator.outputs[0]]) == "FLOAT32"
    ]


@pytest.mark.parametrize("io", ["int8", "float32", "int8,float32"])
def test_scores_beside_boxes_keep_their_steps(io: str) -> None:
    model = detector()
    integer, quantized = made(model, io)
    boxes, scores = parts_db(model, integer, of_columns)
    assert boxes > 30
    assert scores > 30
    assert float_results(integer) == ([] if io == "int8" else ["DEQUANTIZE"])
    assert [(info.name, info.shape) for info in integer.outputs] == [("out", (1, ANCHORS, 7))]
    assert [note for note in quantized.notes if "scales of their own" in note]


def test_the_output_has_a_scale_for_each_slice() -> None:
    integer, _ = made(detector())
    (info,) = integer.outputs
    assert info.scale is None
    assert info.slices is not None
    assert info.slices.axis == 2
    assert len(info.slices.scales) == len(info.slices.zero_points) == 7
    assert info.slices.scales[0] / info.slices.scales[6] > 100


@pytest.mark.parametrize(("kind", "axis"), [("PACK", 2), ("CONCATENATION", 1)])
def test_other_joins_and_axes(kind: str, axis: int) -> None:
    model = detector(kind=kind, axis=axis)
    integer, _ = made(model)

    def parts(values: np.ndarray) -> list[np.ndarray]:
        return (
            [values[:, :, 0], values[:, :, 1]]
            if kind == "PACK"
            else [values[:, :ANCHORS], values[:, ANCHORS:]]
        )

    assert min(parts_db(model, integer, parts)) > 30
    assert kind in kinds(integer)


def test_parts_of_one_size_share_a_scale() -> None:
    model = detector(pixels=2.0)
    assert slices.divide(model, observe(model, samples(model), advance=quiet), Recipe.from_dict(
        {"schema": "edgeq.recipe/1", "scheme": "int8"}
    )).model is model  # fmt: skip
    integer, quantized = made(model)
    assert integer.outputs[0].scale is not None
    assert not [note for note in quantized.notes if "scale" in note]


def test_a_part_that_is_an_output_itself_stays() -> None:
    model = detector(shared=True)
    integer, _ = made(model)
    assert [info.name for info in integer.outputs] == ["out", "boxes"]
    assert integer.outputs[0].slices is None


def test_uint8_outputs_share_a_scale_with_a_warning() -> None:
    integer, quantized = made(detector(), "uint8")
    assert integer.outputs[0].dtype == "uint8"
    assert integer.outputs[0].scale is not None
    assert [note for note in quantized.notes if isinstance(note, Caution) and "--io int8" in note]


def test_scores_that_died_make_the_result_useless() -> None:
    model = detector()
    alive, _ = made(model)
    dead, _ = made(model, "uint8")
    assert usefulness.find_loss(model, alive, samples(model)) is None
    loss = usefulness.find_loss(model, dead, samples(model))
    assert loss is not None
    assert "3 of 7 slices" in loss.reason


def test_a_named_operation_is_left_to_the_recipe() -> None:
    integer, _ = made(detector(), scheme="int8-mixed", float_ops=["out"], io="float32")
    assert "CONCATENATION" in float_results(integer)


def test_a_part_in_int16_is_joined_in_int8() -> None:
    model = detector()
    integer, _ = made(model, "float32", int16_ops=["boxes"])
    assert min(parts_db(model, integer, of_columns)) > 30
    assert float_results(integer) == ["DEQUANTIZE"]
