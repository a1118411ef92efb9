"""Sources with float16 or sparse weights: the same function in float32, and convertible like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.edit import Editor  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.quantization.quantize import quantize  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sources import stored_weights  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net, quantized, quiet, samples  # noqa: E402


def half() -> Model:
    """Return a net as the scheme float16 writes it."""
    return quantize(net(), recipe=Recipe(scheme=Scheme.FLOAT16), ranges=None).model


def kinds(model: Model) -> set[str]:
    return {tflite_file.type_name(tensor) for tensor in model.graph.tensors}


def names(model: Model) -> list[str]:
    return [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]


def test_weights_in_float16_are_widened_to_the_same_function() -> None:
    stored = half()
    assert "FLOAT16" in kinds(stored)
    assert "DEQUANTIZE" in names(stored)
    unpacked = stored_weights.unpacked(stored)
    widened, count = unpacked.model, unpacked.widened
    assert count == names(stored).count("DEQUANTIZE")
    assert kinds(widened) <= {"FLOAT32", "INT32"}
    assert names(widened) == [name for name in names(stored) if name != "DEQUANTIZE"]
    given = samples(net(), 5)
    (one,), (other,) = (run_samples(model, given, advance=quiet) for model in (stored, widened))
    np.testing.assert_array_equal(one, other)


def test_codes_of_operations_that_are_gone_are_dropped() -> None:
    model = stored_weights.unpacked(half()).model
    codes = {int(operator.opcodeIndex) for operator in model.graph.operators}
    assert codes == set(range(len(model.parsed.operatorCodes)))


def test_a_float32_model_stays_byte_for_byte() -> None:
    model = net()
    assert stored_weights.unpacked(model).model is model


def test_the_float16_weights_are_dropped() -> None:
    stored = half()
    widened = stored_weights.unpacked(stored).model
    assert len(widened.data) < 2 * len(net().data)
    sizes = [len(buffer.data) for buffer in widened.parsed.buffers if buffer.data is not None]
    weights = [buffer for buffer in net().parsed.buffers if buffer.data is not None]
    assert sum(sizes) == sum(len(buffer.data) for buffer in weights)


@pytest.mark.slow
def test_a_float16_source_converts_like_its_float32_twin(edgeq: Any, tmp_path: Path) -> None:
    (tmp_path / "half.tflite").write_bytes(half().data)
    np.savez(tmp_path / "c.npz", x=samples(net(), 40).arrays[0])
    result = edgeq(
        "convert", tmp_path / "half.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8",
        "--calibration", tmp_path / "c.npz",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "are stored in float16" in result.err
    assert kinds(Model.read(tmp_path / "o.tflite")) <= {"INT8", "INT32"}


def test_operation_codes_of_files_from_before_schema_3a_are_moved_to_the_current_field() -> None:
    editor = Editor(net())
    for code in editor.parsed.operatorCodes:
        code.builtinCode = 0
    normalized = normalize(editor.pack())
    codes = normalized.parsed.operatorCodes
    assert [code.builtinCode for code in codes] == [code.deprecatedBuiltinCode for code in codes]
    assert normalize(normalized) is normalized


def sparse(*, half_precision: bool) -> tuple[Model, np.ndarray]:
    """Return (a dense layer whose weights are stored sparse by rows, the weights)."""
    random = np.random.default_rng(5)
    weights = random.normal(size=(4, 6)) * (random.random((4, 6)) < 0.4)
    kind = np.float16 if half_precision else np.float32
    weights = weights.astype(kind)
    graph = Graph()
    x, y = graph.tensor("x", (1, 6)), graph.tensor("y", (1, 4))
    stored = graph.tensor("stored", (4, 6), values=np.zeros(0))
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(weights[weights != 0].tobytes(), np.uint8)
    graph.model.buffers[graph.graph.tensors[stored].buffer] = buffer
    dense = graph.tensor("dense", (4, 6))
    for index in (stored, dense):
        if half_precision:
            graph.graph.tensors[index].type = schema.TensorType.FLOAT16
    graph.graph.tensors[stored].sparsity = _by_rows(weights != 0)
    graph.op("DENSIFY", [stored], [dense])
    if half_precision:
        widened = graph.tensor("widened", (4, 6))
        graph.op("DEQUANTIZE", [dense], [widened], version=3)
        dense = widened
    graph.op("FULLY_CONNECTED", [x, dense, -1], [y], options="FullyConnectedOptions")
    return graph.ends([x], [y]).as_model("sparse"), weights.astype(np.float32)


def _by_rows(filled: np.ndarray) -> Any:
    """Return the schema's description of a matrix in compressed sparse rows."""
    rows, columns = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    rows.format, rows.denseSize = schema.DimensionType.DENSE, len(filled)
    columns.format = schema.DimensionType.SPARSE_CSR
    segments, indices = schema.Int32VectorT(), schema.Int32VectorT()
    segments.values = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int32)
    indices.values = np.nonzero(filled)[1].astype(np.int32)
    columns.arraySegmentsType = columns.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    columns.arraySegments, columns.arrayIndices = segments, indices
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = np.array([0, 1], np.int32), [rows, columns]
    return sparsity


@pytest.mark.parametrize("half_precision", [False, True])
def test_sparse_weights_are_unpacked_to_the_same_values(half_precision: bool) -> None:
    model, weights = sparse(half_precision=half_precision)
    unpacked = stored_weights.unpacked(model)
    assert (unpacked.densified, unpacked.widened) == (1, int(half_precision))
    assert len(unpacked.notes) == 1 + int(half_precision)
    assert names(unpacked.model) == ["FULLY_CONNECTED"]
    assert kinds(unpacked.model) == {"FLOAT32"}
    x = np.random.default_rng(6).normal(size=(5, 6)).astype(np.float32)
    given = Samples(inputs=model.inputs, arrays=(x,))
    (values,) = run_samples(unpacked.model, given, advance=quiet)
    np.testing.assert_allclose(values, x @ weights.T, rtol=1e-5, atol=1e-6)
    assert all(tensor.sparsity is None for tensor in unpacked.model.graph.tensors)


def test_a_sparse_model_becomes_integer() -> None:
    model = normalize(stored_weights.unpacked(sparse(half_precision=True)[0]).model)
    made = quantized(model, Samples(inputs=model.inputs, arrays=(np.eye(6, dtype=np.float32),)))
    assert names(made) == ["FULLY_CONNECTED"]
