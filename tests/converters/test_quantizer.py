"""The adapter in this process: schemes, backends, operations that stay float, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("litert_quantizer")

from edgeq_converters.calibration import observe
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference, op_report, tflite_file
from edgeq_converters.quantization import quantize
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import OpKind, Scheme

pytestmark = pytest.mark.filterwarnings("ignore")
Make = Callable[[str, Recipe], quantize.Quantized]


def samples_of(data: bytes, values: np.ndarray) -> Samples:
    inputs, _ = tflite_file.inputs_and_outputs(tflite_file.parse(data, subject="model"))
    return Samples(inputs=inputs, arrays=(values.reshape(-1, *inputs[0].shape[1:]),))


def ranges_of(data: bytes, values: np.ndarray, scheme: Scheme = Scheme.INT8) -> observe.Ranges:
    found = observe.observe(data, samples_of(data, values), subject="model", advance=lambda _amount: None)
    grid = INT16 if scheme is Scheme.INT16X8 else INT8
    return observe.ranges(data, found, calibrator="minmax", subject="model", grid=grid)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(40, 8, 8, 1)).astype(np.float32)


@pytest.fixture
def make(models: Path, values: np.ndarray) -> Make:
    """Quantize a model of the fixtures."""

    def run(name: str, recipe: Recipe) -> quantize.Quantized:
        data = (models / name).read_bytes()
        found = ranges_of(data, values, recipe.scheme) if recipe.scheme.needs_ranges else None
        return quantize.make(data, recipe=recipe, ranges=found, subject=name)

    return run


def outputs(data: bytes, values: np.ndarray) -> np.ndarray:
    samples = samples_of(data, values)
    found = inference.outputs(data, samples, subject="model", advance=lambda _amount: None)[0]
    tensor = tflite_file.inputs_and_outputs(tflite_file.parse(data, subject="model"))[1][0]
    real = found.astype(np.float64)
    return (real - (tensor.zero_point or 0)) * tensor.scale if tensor.scale else real


def sqnr_db(exact: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(exact**2) / np.sum((exact - other) ** 2)))


def kinds(data: bytes) -> list[tuple[str, OpKind]]:
    return [(line.op, line.kind) for line in op_report.lines(tflite_file.parse(data, subject="model"))]


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
    exact = outputs((models / "float.tflite").read_bytes(), values)
    assert sqnr_db(exact, outputs(made.data, values)) > least_db
    inputs, _ = tflite_file.inputs_and_outputs(tflite_file.parse(made.data, subject="model"))
    assert inputs[0].dtype == io
    if scheme.full_integer:
        assert not quantize.strays(
            (models / "float.tflite").read_bytes(), made.data, recipe=Recipe(scheme=scheme), subject="m"
        )
    assert make("float.tflite", Recipe(scheme=scheme, io=io)).data == made.data


def test_int16_activations_are_closer_than_int8(make: Make, models: Path, values: np.ndarray) -> None:
    exact = outputs((models / "float.tflite").read_bytes(), values)
    wide = sqnr_db(exact, outputs(make("float.tflite", Recipe(scheme=Scheme.INT16X8)).data, values))
    narrow = sqnr_db(exact, outputs(make("float.tflite", Recipe(scheme=Scheme.INT8)).data, values))
    assert wide > narrow + 3


def test_int4_says_what_has_which_weights_and_has_them(make: Make) -> None:
    made = make("float.tflite", Recipe(scheme=Scheme.INT4))
    assert made.notes == ("int4 weights: FULLY_CONNECTED, CONV_2D; int8 weights: none",)
    model = tflite_file.parse(made.data, subject="model")
    types = [tflite_file.type_name(tensor) for tensor in model.subgraphs[0].tensors]
    assert types.count("INT4") == 2
    assert len(made.data) < len(make("float.tflite", Recipe(scheme=Scheme.INT8)).data)


def first_output(models: Path, name: str, op: str) -> str:
    model = tflite_file.parse((models / name).read_bytes(), subject=name)
    graph = model.subgraphs[0]
    operator = next(item for item in graph.operators if tflite_file.op_name(model, item) == op)
    return tflite_file.tensor_name(graph.tensors[operator.outputs[0]])


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
    found = [(kind, how) for kind, how in kinds(made.data) if kind not in op_report.CONVERSIONS]
    assert {kind for kind, how in found if how is OpKind.FLOAT} == {op}
    assert all(how is OpKind.INTEGER for kind, how in found if kind != op)
    inputs, results = tflite_file.inputs_and_outputs(tflite_file.parse(made.data, subject="model"))
    assert (inputs[0].dtype, results[0].dtype) == (io, io)
    assert sqnr_db(outputs((models / "float.tflite").read_bytes(), values), outputs(made.data, values)) > 28


def test_a_float_op_that_is_not_there_is_refused_with_the_nearest(make: Make, models: Path) -> None:
    name = first_output(models, "float.tflite", "CONV_2D")
    with pytest.raises(ConverterError) as caught:
        make("float.tflite", Recipe(scheme=Scheme.INT8_MIXED, float_ops=(name + "x",)))
    assert caught.value.code == "EQ330"
    assert repr(name) in str(caught.value.expected)


def test_what_litert_leaves_in_float_goes_to_tensorflow_with_our_ranges(
    make: Make, models: Path, values: np.ndarray
) -> None:
    pytest.importorskip("tensorflow")
    made = make("leaky.tflite", Recipe(scheme=Scheme.INT8))
    assert made.backend == "tensorflow"
    assert any("LEAKY_RELU" in note for note in made.notes)
    assert {how for _, how in kinds(made.data)} == {OpKind.INTEGER}
    tensor = tflite_file.inputs_and_outputs(tflite_file.parse(made.data, subject="model"))[0][0]
    assert tensor.scale == pytest.approx((float(values.max()) - float(values.min())) / 255, rel=1e-5)
    exact = outputs((models / "leaky.tflite").read_bytes(), values)
    assert sqnr_db(exact, outputs(made.data, values)) > 30


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_both_backends_give_the_same_input_grid(make: Make, scheme: Scheme) -> None:
    pytest.importorskip("tensorflow")
    grids = []
    for backend in (Backend.LITERT, Backend.TENSORFLOW):
        made = make("float.tflite", Recipe(scheme=scheme, io=scheme.io_types[-1], backend=backend))
        model = tflite_file.parse(made.data, subject="model")
        grids.append(
            [
                tflite_file.quantization(tensor)
                for tensor in model.subgraphs[0].tensors
                if tflite_file.type_name(tensor) in {"INT8", "INT16"}
                and tflite_file.quantization(tensor) is not None
                and list(tensor.shape) == [1, 8, 8, 1]
            ]
        )
    assert grids[0][0] is not None
    assert grids[1][0] is not None
    assert grids[0][0][0] == pytest.approx(grids[1][0][0], rel=1e-4)
    assert abs(grids[0][0][1] - grids[1][0][1]) <= 1


def test_the_backend_litert_leaves_in_float_what_it_does_not_know(make: Make, models: Path) -> None:
    recipe = Recipe(scheme=Scheme.INT8, backend=Backend.LITERT)
    made = make("leaky.tflite", recipe)
    data = (models / "leaky.tflite").read_bytes()
    assert quantize.strays(data, made.data, recipe=recipe, subject="leaky") == ("LEAKY_RELU",)


def test_what_no_backend_has_is_said(make: Make) -> None:
    pytest.importorskip("tensorflow")
    made = make("sine.tflite", Recipe(scheme=Scheme.INT8_MIXED))
    assert any("neither" in note and "SIN" in note for note in made.notes)


def test_tensorflow_makes_no_weights_only_scheme(make: Make) -> None:
    with pytest.raises(ConverterError) as caught:
        make("float.tflite", Recipe(scheme=Scheme.DYNAMIC, backend=Backend.TENSORFLOW))
    assert caught.value.code == "EQ332"


def test_a_loop_is_refused_by_name(models: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        quantize.make(
            (models / "loop.tflite").read_bytes(), recipe=Recipe(scheme=Scheme.INT8), ranges={}, subject="m"
        )
    assert caught.value.code == "EQ308"
    assert "WHILE" in str(caught.value.problem)
    assert "unroll" in str(caught.value.hint)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8, Scheme.INT4])
def test_constant_and_zero_samples_give_a_model_that_runs(models: Path, scheme: Scheme, value: float) -> None:
    data = (models / "float.tflite").read_bytes()
    still = np.full((3, 8, 8, 1), value, np.float32)
    recipe = Recipe(scheme=scheme, io="float32")
    made = quantize.make(data, recipe=recipe, ranges=ranges_of(data, still, scheme), subject="model")
    exact, other = outputs(data, still), outputs(made.data, still)
    assert np.abs(exact - other).max() < (0.2 if scheme is Scheme.INT4 else 0.05)
