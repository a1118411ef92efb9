"""Every kind of source, converted by every scheme."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgeq.conversion import OpKind, convert
from edgeq.errors import ModelError
from edgeq.evaluation import describe, evaluate, raw_outputs

pytestmark = pytest.mark.convert
OTHERS = ["legacy.h5", "keras2_saved_model", "plain_saved_model"]
SOURCES = ["model.keras", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest, models: Path) -> Path:
    """Each kind of source."""
    return models / str(request.param)


@pytest.fixture(scope="module")
def floats(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as a float .tflite."""
    return convert(source, tmp_path_factory.mktemp("floats") / "float.tflite", scheme="float32").path


@pytest.mark.slow
def test_a_source_becomes_a_float_model_with_names_and_batch_one(floats: Path) -> None:
    info = describe(floats)
    assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in info.inputs] == [
        ("image", (1, 8, 8, 1), "float32")
    ]
    assert [tensor.shape for tensor in info.outputs] == [(1, 3)]
    assert {line.kind for line in info.ops} == {OpKind.FLOAT}
    assert not {"SHAPE", "PACK", "VAR_HANDLE"} & {line.op for line in info.ops}


@pytest.mark.slow
def test_int8_is_full_integer_and_close(source: Path, floats: Path, data: Path, tmp_path: Path) -> None:
    done = convert(floats, tmp_path / "int8.tflite", scheme="int8", calibration=data)
    assert {line.kind for line in done.op_report} == {OpKind.INTEGER}
    assert [tensor.dtype for tensor in (*done.inputs, *done.outputs)] == ["int8", "int8"]
    assert all(tensor.scale for tensor in (*done.inputs, *done.outputs))
    metrics = evaluate(done.path, data, reference=floats)
    assert metrics.output_sqnr_db is not None
    assert metrics.output_sqnr_db > 25
    assert describe(done.path).ops == done.op_report
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert done.size_bytes == done.path.stat().st_size
    if source.suffix == ".keras":
        # In one step from the source it is the same file: also TensorFlow's part is reproducible.
        direct = convert(source, tmp_path / "direct.tflite", scheme="int8", calibration=data)
        assert (direct.sha256, direct.backend) == (done.sha256, "litert-quantizer")
        assert {"tensorflow", "litert-quantizer", "ai-edge-litert"} <= set(direct.tools)


@pytest.mark.slow
def test_float_io_keeps_the_integer_graph_inside(models: Path, data: Path, tmp_path: Path) -> None:
    done = convert(
        models / "float.tflite", tmp_path / "io.tflite", scheme="int8", calibration=data, io="float32"
    )
    assert [tensor.dtype for tensor in (*done.inputs, *done.outputs)] == ["float32", "float32"]
    assert [line.op for line in done.op_report if line.kind is not OpKind.INTEGER] == [
        "QUANTIZE",
        "DEQUANTIZE",
    ]
    assert sum(line.kind is OpKind.INTEGER for line in done.op_report) >= 4


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "least_db"), [("float16", 50), ("dynamic", 20)])
def test_weights_only_schemes(models: Path, data: Path, tmp_path: Path, scheme: str, least_db: float) -> None:
    source = models / "float.tflite"
    done = convert(source, tmp_path / "out.tflite", scheme=scheme)
    metrics = evaluate(done.path, data, reference=source)
    assert metrics.output_sqnr_db is not None
    assert least_db < metrics.output_sqnr_db < np.inf
    assert [tensor.dtype for tensor in (*done.inputs, *done.outputs)] == ["float32", "float32"]
    expected = "float16" if scheme == "float16" else "integer weights"
    assert any(expected in line.reason for line in done.op_report)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_in_any_order_of_samples(
    models: Path, data: Path, tmp_path: Path
) -> None:
    with np.load(data) as loaded:
        shuffled = loaded["x"][::-1]
    source = models / "float.tflite"
    one = convert(source, tmp_path / "1.tflite", scheme="int8", calibration=data)
    two = convert(source, tmp_path / "2.tflite", scheme="int8", calibration=data)
    other = convert(source, tmp_path / "3.tflite", scheme="int8", calibration=shuffled)
    assert one.sha256 == two.sha256 == other.sha256
    fewer = convert(source, tmp_path / "4.tflite", scheme="int8", calibration=shuffled[:2])
    assert fewer.sha256 != one.sha256


@pytest.mark.slow
def test_what_litert_quantizer_does_not_know_becomes_integers(
    models: Path, data: Path, tmp_path: Path
) -> None:
    done = convert(models / "leaky.keras", tmp_path / "int8.tflite", scheme="int8", calibration=data)
    assert done.backend == "litert-quantizer"
    assert {line.kind for line in done.op_report} == {OpKind.INTEGER}
    assert any("LEAKY_RELU" in note for note in done.notes)


@pytest.mark.slow
def test_a_tflite_with_an_unknown_operation_is_not_full_integer(
    models: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "int8.tflite"
    with pytest.raises(ModelError) as caught:
        convert(models / "angle.tflite", output, scheme="int8", calibration=data)
    assert caught.value.reported_code == "EQ307"
    assert "ATAN2" in caught.value.message
    assert not output.exists()


@pytest.mark.slow
def test_a_model_with_its_own_batch_size(models: Path, data: Path, tmp_path: Path) -> None:
    with np.load(data) as loaded:
        samples = loaded["x"][:10]  # not a multiple of 4: the last batch is filled up
    done = convert(models / "batch4.tflite", tmp_path / "b4.tflite", scheme="int8", calibration=samples)
    alone = convert(models / "float.tflite", tmp_path / "b1.tflite", scheme="int8", calibration=samples)
    assert [tensor.scale for tensor in done.inputs] == [tensor.scale for tensor in alone.inputs]
    (batched,), (single,) = raw_outputs(done.path, samples), raw_outputs(alone.path, samples)
    assert batched.shape == (10, 3)
    assert np.abs(batched.astype(int) - single.astype(int)).max() <= 1


@pytest.mark.slow
def test_without_a_signature_and_with_equal_tensor_names(models: Path, data: Path, tmp_path: Path) -> None:
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    source = models / "float.tflite"
    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    model.signatureDefs = None
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"same"
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(bytes(builder.Output()))
    done = convert(bare, tmp_path / "bare8.tflite", scheme="int8", calibration=data)
    named = convert(source, tmp_path / "named8.tflite", scheme="int8", calibration=data)
    assert np.array_equal(raw_outputs(done.path, _x(data))[0], raw_outputs(named.path, _x(data))[0])


def _x(data: Path) -> np.ndarray:
    with np.load(data) as loaded:
        return np.asarray(loaded["x"])
