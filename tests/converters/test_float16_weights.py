"""Sources with float16 weights: the same function in float32, and convertible like any other source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.edit import Editor  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.quantization.quantize import quantize  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sources import float16_weights  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .nets import net, quiet, samples  # noqa: E402


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
    widened, count = float16_weights.widen(stored)
    assert count == names(stored).count("DEQUANTIZE")
    assert kinds(widened) <= {"FLOAT32", "INT32"}
    assert names(widened) == [name for name in names(stored) if name != "DEQUANTIZE"]
    given = samples(net(), 5)
    (one,), (other,) = (run_samples(model, given, advance=quiet) for model in (stored, widened))
    np.testing.assert_array_equal(one, other)


def test_a_float32_model_stays_byte_for_byte() -> None:
    model = net()
    assert float16_weights.widen(model) == (model, 0)


def test_the_float16_weights_are_dropped() -> None:
    stored = half()
    widened, _ = float16_weights.widen(stored)
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
