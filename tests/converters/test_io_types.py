"""Types of inputs and outputs: uint8, int8 and float32 at the border of one integer model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.convert,
    # litert-quantizer's own; conversions run in a child process, where warnings stay warnings.
    pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning"),
]
pytest.importorskip("ai_edge_litert")

from edgeq.evaluation import raw_outputs  # noqa: E402
from edgeq.testing.loopback import loopback_device  # noqa: E402
from edgeq_converters.data.files import RawSamples  # noqa: E402
from edgeq_converters.data.samples import Samples, match, to_model, to_real  # noqa: E402
from edgeq_converters.graph.interface import interface_of, require_interface  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization.integer_io import with_types  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sensitivity.usefulness import find_loss  # noqa: E402
from edgeq_converters.values import IoTypes, Scheme, TensorInfo  # noqa: E402
from edgeq_converters.worker.jobs import evaluate  # noqa: E402
from edgeq_converters.worker.protocol import EvaluateJob  # noqa: E402
from tests.fleet.servers import enrol_at  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net, quantized, quiet, samples  # noqa: E402

KINDS = ("int8", "uint8", "float32")


def two_ended() -> Model:
    """Return a model whose first output is its second's source, with an input of indices."""
    random = np.random.default_rng(0)
    graph: Any = Graph()
    x, a, y = graph.tensor("x", (1, 6)), graph.tensor("a", (1, 6)), graph.tensor("y", (1, 6))
    graph.op("ADD", (x, x), (a,), options="AddOptions")
    w = graph.tensor("w", (6, 6), values=random.normal(size=(6, 6)))
    b = graph.tensor("b", (6,), values=np.zeros(6))
    graph.op("FULLY_CONNECTED", (a, w, b), (y,), options="FullyConnectedOptions")
    return normalize(graph.ends([x], [a, y]).as_model("two ended"))


@pytest.mark.parametrize("outputs", KINDS)
@pytest.mark.parametrize("inputs", KINDS)
def test_every_pair_of_types_computes_what_int8_does(inputs: str, outputs: str) -> None:
    model = two_ended()
    rows = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    given = Samples(inputs=model.inputs, arrays=(rows,))
    core = quantized(model, given)
    made = with_types(core, IoTypes(inputs=inputs, outputs=outputs))
    require_interface(made, interface_of(model), io=IoTypes(inputs=inputs, outputs=outputs))
    for tensor, inner in zip((*made.inputs, *made.outputs), (*core.inputs, *core.outputs), strict=True):
        assert tensor.name == inner.name
        if tensor.dtype == "uint8":
            assert tensor.scale == inner.scale
            assert tensor.zero_point == (inner.zero_point or 0) + 128
    expected, got = (run_samples(each, given, advance=quiet) for each in (core, made))
    for one, other, inner, outer in zip(expected, got, core.outputs, made.outputs, strict=True):
        np.testing.assert_allclose(to_real(one, inner), to_real(other, outer), atol=1e-6)


def test_a_recipe_names_one_type_or_two() -> None:
    assert Recipe(scheme=Scheme.INT8, io="uint8").types == IoTypes(inputs="uint8", outputs="uint8")
    mixed = Recipe(scheme=Scheme.INT8, io="uint8,float32")
    mixed.check()
    assert (mixed.types.inputs, mixed.types.outputs, mixed.core_io) == ("uint8", "float32", "int8")
    assert Recipe(scheme=Scheme.INT8, io="float32").core_io == "float32"
    for scheme, io in (
        (Scheme.INT8, "int16"),
        (Scheme.INT16X8, "uint8"),
        (Scheme.FLOAT16, "uint8"),
        (Scheme.INT8, "uint8,"),
    ):
        with pytest.raises(ValueError, match=r"^io: "):
            Recipe(scheme=scheme, io=io).check()


@pytest.mark.slow
@pytest.mark.parametrize("io", ["uint8", "uint8,float32", "int8,uint8", "float32,uint8"])
def test_a_uint8_model_is_converted_evaluated_and_bundled(
    io: str, tmp_path: Path, edgeq: Callable[..., Any]
) -> None:
    model = net()
    source, output, data = tmp_path / "net.tflite", tmp_path / "q.tflite", tmp_path / "c.npz"
    source.write_bytes(model.data)
    np.savez(data, x=samples(model, 40).arrays[0])
    done = edgeq("convert", source, "-o", output, "--scheme", "int8", "--calibration", data, "--io", io)
    assert done.status == 0, done.err
    written = Model.read(output)
    assert (written.inputs[0].dtype, written.outputs[0].dtype) == (*io.split(","), io)[:2]
    done = edgeq("evaluate", output, "--data", data, "--reference", source, "--strict", "--json")
    assert done.status == 0, done.err
    done = edgeq("bundle", output, "-o", tmp_path / "q.eqb", "--name", "net", "--data", data)
    assert done.status == 0, done.err
    done = edgeq(
        "convert", source, "-o", output, "--scheme", "int16x8", "--calibration", data, "--io", "uint8"
    )
    assert (done.status, "--io uint8" in done.err) == (2, True)


def two_types(folder: Path) -> tuple[Path, Path, Model]:
    """Write a float model and its integer model with uint8 inputs and outputs: two files, and the latter."""
    model = two_ended()
    rows = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32)
    core = quantized(model, Samples(inputs=model.inputs, arrays=(rows,)))
    made = with_types(core, IoTypes(inputs="uint8", outputs="uint8"))
    (folder / "f.tflite").write_bytes(model.data)
    (folder / "q.tflite").write_bytes(made.data)
    return folder / "f.tflite", folder / "q.tflite", made


@pytest.mark.parametrize("first", ["integer", "float"])
@pytest.mark.parametrize("given", ["own integers", "real values"])
def test_both_models_of_an_evaluation_get_the_same_values(given: str, first: str, tmp_path: Path) -> None:
    floating, integer, made = two_types(tmp_path)
    real = np.random.default_rng(2).normal(size=(12, 6)).astype(np.float32)
    rows = to_model(real, made.inputs[0]) if given == "own integers" else real
    np.savez(tmp_path / "d.npz", x=rows)
    models = (integer, floating) if first == "integer" else (floating, integer)
    job = EvaluateJob(models=models, data=tmp_path / "d.npz", arrays=tmp_path / "o.npz")
    result = evaluate.run(job, lambda _what, _total: lambda _done: None)
    with np.load(tmp_path / "o.npz") as loaded:
        outputs = [
            [to_real(loaded[f"run_{number}_output_{i}"], info.outputs[i]) for i in range(2)]
            for number, info in enumerate(result.infos)
        ]
    assert sqnr_db(*outputs) > 20
    assert any("the model's own integers" in note for note in result.notes) == (given == "own integers")


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16])
def test_integers_for_a_float_input_are_real_values_for_the_model_made_of_it(kind: Any) -> None:
    model = two_ended()
    rows = np.random.default_rng(3).integers(0, 90, (30, 6)).astype(kind)
    given = match(RawSamples(subject="d", arrays={"x": rows}), model.inputs)
    made = with_types(quantized(model, given), IoTypes(inputs="uint8", outputs="uint8"))
    assert find_loss(model, made, given) is None
    expected, got = (run_samples(each, given, advance=quiet) for each in (model, made))
    real = [to_real(array, tensor) for array, tensor in zip(got, made.outputs, strict=True)]
    assert sqnr_db(real, expected) > 25


def test_pixels_are_real_values_for_a_uint8_input() -> None:
    image = np.full((8, 8, 3), 200, np.uint8)
    raw = RawSamples(subject="images", images=(image,))
    tensor = TensorInfo(name="x", shape=(1, 8, 8, 3), dtype="uint8", scale=2.0, zero_point=0)
    assert to_model(match(raw, (tensor,)).arrays[0], tensor).max() == 100


@pytest.mark.slow
def test_a_uint8_model_is_deployed_timed_and_run_on_a_device(
    tmp_path: Path, edgeq: Callable[..., Any], workspace: Path
) -> None:
    model = net()
    source, output, data, bundle = (tmp_path / name for name in ("f.tflite", "q.tflite", "c.npz", "m.eqb"))
    source.write_bytes(model.data)
    np.savez(data, x=samples(model, 40).arrays[0])
    calibrated = ("--scheme", "int8", "--calibration", data, "--io", "uint8")
    done = edgeq("convert", source, "-o", output, *calibrated)
    assert done.status == 0, done.err
    done = edgeq("bundle", output, "-o", bundle, "--name", "net", "--data", data)
    assert done.status == 0, done.err
    own = to_model(samples(model, 40).arrays[0], Model.read(output).inputs[0])
    assert own.dtype == np.uint8
    np.savez(tmp_path / "own.npz", x=own)
    (expected,) = raw_outputs(output, own)
    assert expected.dtype == np.uint8
    real = to_real(expected, Model.read(output).outputs[0])
    with loopback_device(tmp_path / "device") as running:
        enrol_at(running, workspace)
        done = edgeq("deploy", bundle, "--to", "pi", "--yes")  # the golden outputs are compared there
        assert done.status == 0, done.err
        done = edgeq("bench", "net", "--on", "pi", "--runs", 50, "--json")
        assert done.status == 0, done.err
        for given in (data, tmp_path / "own.npz"):
            done = edgeq("infer", "net", "--on", "pi", "--data", given, "--outputs", "--json")
            assert done.status == 0, done.err
            np.testing.assert_allclose(json.loads(done.out)["outputs"], real, atol=1e-9)
