"""Sources whose weights are stored in float16: the same function in float32, and a source like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.graph import inference, tflite_file  # noqa: E402
from edgeq_converters.quantization import quantize  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sources import float16_weights  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .nets import net, quiet, samples  # noqa: E402


def half() -> bytes:
    """Return a net as the scheme float16 writes it."""
    return quantize.quantize(net(), recipe=Recipe(scheme=Scheme.FLOAT16), ranges=None, subject="net")


def kinds(data: bytes) -> set[str]:
    model = tflite_file.parse(data, subject="net")
    return {tflite_file.type_name(tensor) for tensor in model.subgraphs[0].tensors}


def names(data: bytes) -> list[str]:
    model = tflite_file.parse(data, subject="net")
    return [tflite_file.op_name(model, operator) for operator in model.subgraphs[0].operators]


def test_weights_in_float16_are_widened_to_the_same_function() -> None:
    stored = half()
    assert "FLOAT16" in kinds(stored)
    assert "DEQUANTIZE" in names(stored)
    widened, count = float16_weights.as_float32(stored, subject="net")
    assert count == names(stored).count("DEQUANTIZE")
    assert kinds(widened) <= {"FLOAT32", "INT32"}
    assert names(widened) == [name for name in names(stored) if name != "DEQUANTIZE"]
    given = samples(net(), 5)
    (one,), (other,) = (
        inference.outputs(data, given, subject="net", advance=quiet) for data in (stored, widened)
    )
    np.testing.assert_array_equal(one, other)


def test_a_float32_model_stays_byte_for_byte() -> None:
    data = net()
    assert float16_weights.as_float32(data, subject="net") == (data, 0)


def test_the_float16_weights_do_not_travel_on() -> None:
    stored = half()
    widened, _ = float16_weights.as_float32(stored, subject="net")
    assert len(widened) < 2 * len(net())
    again = tflite_file.parse(widened, subject="net")
    sizes = [len(buffer.data) for buffer in again.buffers if buffer.data is not None]
    weights = [b for b in tflite_file.parse(net(), subject="net").buffers if b.data is not None]
    assert sum(sizes) == sum(len(buffer.data) for buffer in weights)


def test_a_float16_source_converts_like_its_float32_twin(edgeq: Any, tmp_path: Path) -> None:
    (tmp_path / "half.tflite").write_bytes(half())
    np.savez(tmp_path / "c.npz", x=samples(net(), 40).arrays[0])
    said = edgeq(
        "convert", tmp_path / "half.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8",
        "--calibration", tmp_path / "c.npz",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert "were stored in float16" in said.err
    assert kinds((tmp_path / "o.tflite").read_bytes()) <= {"INT8", "INT32"}


def test_a_file_of_before_schema_3a_is_quantized_by_what_its_operations_are() -> None:
    import flatbuffers

    model = tflite_file.parse(net(), subject="net")
    for code in model.operatorCodes:
        code.builtinCode = 0
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    old = tflite_file.normalized(bytes(builder.Output()), subject="net")
    codes = tflite_file.parse(old, subject="net").operatorCodes
    assert [code.builtinCode for code in codes] == [code.deprecatedBuiltinCode for code in codes]
    assert tflite_file.normalized(old, subject="net") == old
