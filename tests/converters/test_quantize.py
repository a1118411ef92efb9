"""Quantization with given ranges: schemes, backends, operations that stay float, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("litert_quantizer")

from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.calibration.ranges import Ranges, calibrated_ranges
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import op_report, tflite_file
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import ignore
from edgeq_converters.quantization.quantize import Quantized, quantize, unexpected_float_ops
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import OpKind, Scheme, warnings_of

pytestmark = pytest.mark.filterwarnings("ignore")
Make = Callable[[str, Recipe], Quantized]


def samples_of(model: Model, values: np.ndarray) -> Samples:
    return Samples(inputs=model.inputs, arrays=(values.reshape(-1, *model.inputs[0].shape[1:]),))


def ranges_of(model: Model, values: np.ndarray, scheme: Scheme = Scheme.INT8) -> Ranges:
    histograms = observe(model, samples_of(model, values), advance=ignore)
    grid = INT16 if scheme is Scheme.INT16X8 else INT8
    return calibrated_ranges(model, histograms, calibrator="minmax", grid=grid)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(40, 8, 8, 1)).astype(np.float32)


@pytest.fixture
def make(models: Path, values: np.ndarray) -> Make:
    """Quantize a model of the fixtures."""

    def run(name: str, recipe: Recipe) -> Quantized:
        model = Model.read(models / name)
        ranges = ranges_of(model, values, recipe.scheme) if recipe.scheme.needs_ranges else None
        return quantize(model, recipe=recipe, ranges=ranges)

    return run


def outputs(model: Model, values: np.ndarray) -> np.ndarray:
    values_out = run_samples(model, samples_of(model, values), advance=ignore)[0]
    tensor = model.outputs[0]
    real = values_out.astype(np.float64)
    return (real - (tensor.zero_point or 0)) * tensor.scale if tensor.scale else real


def sqnr_db(exact: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(exact**2) / np.sum((exact - other) ** 2)))


def kinds(model: Model) -> list[tuple[str, OpKind]]:
    return [(line.op, line.kind) for line in op_report.op_lines(model)]


@pytest.mark.parametrize(
    ("scheme", "io", "least_db"),
    [
        (Scheme.FLOAT16, "float32", 50),
        (Scheme.DYNAMIC, "float32", 30),
        (Scheme.INT8, "int8", 30),
        (Scheme.INT8, "float32", 30),
        (Scheme.INT16X8, "int16", 38),
        (Scheme.INT16X8, "float32", 38),
        (Scheme.INT8_MIXED, "int8", 30),
        (Scheme.INT4, "int8", 15),
        (Scheme.INT4, "float32", 15),
    ],
)
def test_every_scheme_runs_and_is_close(
    make: Make, models: Path, values: np.ndarray, scheme: Scheme, io: str, least_db: float
) -> None:
    made = make("float.tflite", Recipe(scheme=scheme, io=io))
    exact = outputs(Model.read(models / "float.tflite"), values)
    assert sqnr_db(exact, outputs(made.model, values)) > least_db
    assert made.model.inputs[0].dtype == io
    if scheme.full_integer:
        assert not unexpected_float_ops(made.model, recipe=Recipe(scheme=scheme))
    assert make("float.tflite", Recipe(scheme=scheme, io=io)).model.data == made.model.data


def test_int16_activations_are_closer_than_int8(make: Make, models: Path, values: np.ndarray) -> None:
    exact = outputs(Model.read(models / "float.tflite"), values)
    wide = sqnr_db(exact, outputs(make("float.tflite", Recipe(scheme=Scheme.INT16X8)).model, values))
    narrow = sqnr_db(exact, outputs(make("float.tflite", Recipe(scheme=Scheme.INT8)).model, values))
    assert wide > narrow + 3


def test_int4_notes_which_operations_have_4_bit_weights(make: Make) -> None:
    made = make("float.tflite", Recipe(scheme=Scheme.INT4))
    assert made.notes == ("int4 weights: FULLY_CONNECTED, CONV_2D; int8 weights: none",)
    types = [tflite_file.type_name(tensor) for tensor in made.model.graph.tensors]
    assert types.count("INT4") == 2
    assert len(made.model.data) < len(make("float.tflite", Recipe(scheme=Scheme.INT8)).model.data)


def first_output(models: Path, name: str, op: str) -> str:
    model = Model.read(models / name)
    operator = next(item for item in model.graph.operators if tflite_file.op_name(model.parsed, item) == op)
    return tflite_file.operation_name(model.graph, operator)


@pytest.mark.first_is_quick
@pytest.mark.parametrize("backend", [Backend.LITERT, Backend.TENSORFLOW])
@pytest.mark.parametrize(("op", "io"), [("CONV_2D", "int8"), ("FULLY_CONNECTED", "float32")])
def test_float_ops_stay_float_and_no_others(
    make: Make, models: Path, values: np.ndarray, backend: Backend, op: str, io: str
) -> None:
    if backend is Backend.TENSORFLOW:
        pytest.importorskip("tensorflow")
    name = first_output(models, "float.tflite", op)
    recipe = Recipe(scheme=Scheme.INT8_MIXED, io=io, float_ops=(name,), backend=backend)
    made = make("float.tflite", recipe)
    computing = [(kind, how) for kind, how in kinds(made.model) if kind not in op_report.CONVERSIONS]
    assert {kind for kind, how in computing if how is OpKind.FLOAT} == {op}
    assert all(how is OpKind.INTEGER for kind, how in computing if kind != op)
    assert (made.model.inputs[0].dtype, made.model.outputs[0].dtype) == (io, io)
    assert sqnr_db(outputs(Model.read(models / "float.tflite"), values), outputs(made.model, values)) > 28


def test_an_unknown_float_op_is_refused_with_the_nearest_name(make: Make, models: Path) -> None:
    name = first_output(models, "float.tflite", "CONV_2D")
    with pytest.raises(ConverterError) as caught:
        make("float.tflite", Recipe(scheme=Scheme.INT8_MIXED, float_ops=(name + "x",)))
    assert caught.value.code == "EQ330"
    assert repr(name) in str(caught.value.expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [Backend.AUTO, Backend.TENSORFLOW])
def test_what_litert_leaves_in_float_becomes_integers_with_our_ranges(
    backend: Backend, make: Make, models: Path, values: np.ndarray
) -> None:
    if backend is Backend.TENSORFLOW:
        pytest.importorskip("tensorflow")
    made = make("leaky.tflite", Recipe(scheme=Scheme.INT8, backend=backend))
    assert {how for _, how in kinds(made.model)} == {OpKind.INTEGER}
    tensor = made.model.inputs[0]
    assert tensor.scale == pytest.approx((float(values.max()) - float(values.min())) / 255, rel=1e-5)
    exact = outputs(Model.read(models / "leaky.tflite"), values)
    assert sqnr_db(exact, outputs(made.model, values)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_both_backends_give_the_same_input_grid(make: Make, scheme: Scheme) -> None:
    pytest.importorskip("tensorflow")
    grids = []
    for backend in (Backend.LITERT, Backend.TENSORFLOW):
        made = make("float.tflite", Recipe(scheme=scheme, io=scheme.io_types[-1], backend=backend))
        grids.append(
            [
                tflite_file.quantization(tensor)
                for tensor in made.model.graph.tensors
                if tflite_file.type_name(tensor) in {"INT8", "INT16"}
                and tflite_file.quantization(tensor) is not None
                and list(tensor.shape) == [1, 8, 8, 1]
            ]
        )
    assert grids[0][0] is not None
    assert grids[1][0] is not None
    assert grids[0][0][0] == pytest.approx(grids[1][0][0], rel=1e-4)
    assert abs(grids[0][0][1] - grids[1][0][1]) <= 1


def test_the_litert_backend_leaves_unknown_operations_in_float(make: Make, models: Path) -> None:
    recipe = Recipe(scheme=Scheme.INT8, backend=Backend.LITERT)
    made = make("leaky.tflite", recipe)
    assert unexpected_float_ops(made.model, recipe=recipe) == ("LEAKY_RELU",)


def test_a_note_names_operations_that_no_backend_quantizes(make: Make) -> None:
    pytest.importorskip("tensorflow")
    made = make("angle.tflite", Recipe(scheme=Scheme.INT8_MIXED))
    assert any("neither" in note and "ATAN2" in note for note in warnings_of(made.notes)), made.notes


def test_the_tensorflow_backend_refuses_weight_only_schemes(make: Make) -> None:
    with pytest.raises(ConverterError) as caught:
        make("float.tflite", Recipe(scheme=Scheme.DYNAMIC, backend=Backend.TENSORFLOW))
    assert caught.value.code == "EQ332"


def test_a_loop_is_refused_by_name(models: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        quantize(Model.read(models / "loop.tflite"), recipe=Recipe(scheme=Scheme.INT8), ranges={})
    assert caught.value.code == "EQ308"
    assert "WHILE" in str(caught.value.problem)
    assert "unroll" in str(caught.value.hint)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8, Scheme.INT4])
def test_constant_and_zero_samples_give_a_model_that_runs(models: Path, scheme: Scheme, value: float) -> None:
    model = Model.read(models / "float.tflite")
    still = np.full((3, 8, 8, 1), value, np.float32)
    recipe = Recipe(scheme=scheme, io="float32")
    made = quantize(model, recipe=recipe, ranges=ranges_of(model, still, scheme))
    exact, other = outputs(model, still), outputs(made.model, still)
    assert np.abs(exact - other).max() < (0.2 if scheme is Scheme.INT4 else 0.05)
