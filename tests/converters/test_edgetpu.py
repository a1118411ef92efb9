"""Edge TPU readiness: Coral's table, split graphs, the compiler's log, compiled models."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from edgeq.cli import main
from edgeq.conversion import convert
from edgeq.errors import ModelError
from edgeq_converters.edgetpu import compiler, report

from .graphs import Graph

pytestmark = pytest.mark.convert
I8 = np.int8
LOGS = Path(__file__).with_name("edgetpu_logs")
PARTLY, WHOLE = ((LOGS / f"{name}.txt").read_text(encoding="utf-8") for name in ("partly", "whole"))


def test_a_log_of_a_partly_mapped_model() -> None:
    log = compiler.parse_log(PARTLY)
    assert (log.version, log.tpu_ops, log.cpu_ops, log.subgraphs) == ("16.0.384591198", 139, 4, 1)
    assert log.on_chip_bytes == round(6.03 * 1024 * 1024)
    assert log.streamed_bytes == 12_800
    assert [(row.op, row.count, row.on_tpu) for row in log.ops] == [
        ("CONV_2D", 83, True),
        ("QUANTIZE", 52, True),
        ("QUANTIZE", 1, False),
        ("RESIZE_NEAREST_NEIGHBOR", 4, True),
        ("TRANSPOSE", 2, False),
        ("CONCATENATION", 1, False),
    ]
    assert log.ops[2].status.endswith("some unspecified limitation")
    assert log.error is None


def test_a_log_without_totals_is_counted() -> None:
    log = compiler.parse_log(WHOLE)
    assert (log.version, log.tpu_ops, log.cpu_ops, log.streamed_bytes) == ("2.1.302470888", 13, 0, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Edge TPU Compiler version 16.0\nInvalid model: m.tflite\nModel not quantized\n", "Invalid model"),
        ("Edge TPU Compiler version 16.0\nInternal compiler error. Aborting! \n", "Internal compiler error"),
        ("ERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'\n", "QUANTIZE"),
    ],
)
def test_a_log_of_a_failure(text: str, words: str) -> None:
    error = compiler.parse_log(text).error
    assert error is not None
    assert words in error


def one_op(name: str, shape: tuple[int, ...], out: tuple[int, ...], more: Any = (), **options: Any) -> Any:
    graph = Graph()
    x, y = graph.tensor("x", shape, dtype=I8), graph.tensor("y", out, dtype=I8)
    extra = [graph.tensor(f"c{i}", np.shape(v), dtype=v.dtype, values=v) for i, v in enumerate(more)]
    order = [x, *extra] if not options.pop("axis_first", False) else [*extra, x]
    graph.op(name, order, [y], **options)
    return report.readiness(graph.ends([x], [y]).as_model()).ops[0]


def i32(*values: Any) -> Any:
    return np.array(values, np.int32)


CONV = {"options": "Conv2DOptions", "strideW": 1, "strideH": 1}
RELU = schema.ActivationFunctionType.RELU
TABLE: dict[str, tuple[Any, str]] = {
    "relu": (lambda: one_op("RELU", (1, 4), (1, 4)), "supported"),
    "unknown": (lambda: one_op("LEAKY_RELU", (1, 4), (1, 4)), "not in Coral's table"),
    "custom": (lambda: one_op("CUSTOM mine", (1, 4), (1, 4)), "custom operations"),
    "rank": (lambda: one_op("RELU", (2, 3, 4, 4), (2, 3, 4, 4)), "three innermost dimensions"),
    "softmax": (lambda: one_op("SOFTMAX", (1, 10), (1, 10)), "supported"),
    "softmax, two-dimensional": (lambda: one_op("SOFTMAX", (5, 10), (5, 10)), "not one-dimensional"),
    "softmax, large": (lambda: one_op("SOFTMAX", (1, 16001), (1, 16001)), "more than 16000"),
    "mean over x and y": (lambda: one_op("MEAN", (1, 4, 4, 6), (1, 6), [i32(1, 2)]), "supported"),
    "mean over z of 6": (lambda: one_op("MEAN", (1, 4, 4, 6), (1, 4, 4), [i32(-1)]), "not a multiple of 4"),
    "mean over z of 8": (lambda: one_op("MEAN", (1, 4, 4, 8), (1, 4, 4), [i32(-1)]), "supported"),
    "mean over the batch": (lambda: one_op("MEAN", (1, 4), (4,), [i32(0)]), "batch"),
    "sum over the batch": (lambda: one_op("SUM", (1, 4), (4,), [i32(0)]), "reduces the batch"),
    "pad": (
        lambda: one_op("PAD", (1, 4, 4, 2), (1, 6, 6, 2), [i32([0, 0], [1, 1], [1, 1], [0, 0])]),
        "supported",
    ),
    "pad the batch": (
        lambda: one_op("PAD", (1, 4, 4, 2), (3, 4, 4, 2), [i32([1, 1], [0, 0], [0, 0], [0, 0])]),
        "three innermost",
    ),
    "split": (
        lambda: one_op("SPLIT", (1, 4, 4, 4), (1, 4, 4, 4), [i32(3)], axis_first=True),
        "supported",
    ),
    "split the batch": (
        lambda: one_op("SPLIT", (1, 4), (1, 4), [i32(0)], axis_first=True),
        "splits the batch",
    ),
    "prelu": (lambda: one_op("PRELU", (1, 4, 4, 2), (1, 4, 4, 2), [np.ones((1, 1, 2), I8)]), "supported"),
    "prelu of a map": (
        lambda: one_op("PRELU", (1, 4, 4, 2), (1, 4, 4, 2), [np.ones((4, 4, 2), I8)]),
        "alpha",
    ),
    "pool": (
        lambda: one_op("MAX_POOL_2D", (1, 4, 4, 2), (1, 2, 2, 2), options="Pool2DOptions"),
        "supported",
    ),
    "pool with relu": (
        lambda: one_op(
            "MAX_POOL_2D", (1, 4, 4, 2), (1, 2, 2, 2), options="Pool2DOptions", fusedActivationFunction=RELU
        ),
        "fused activation",
    ),
    "conv": (
        lambda: one_op("CONV_2D", (1, 4, 4, 2), (1, 4, 4, 3), [np.ones((3, 1, 1, 2), I8)], **CONV),
        "supported",
    ),
    "conv, dilated in one direction": (
        lambda: one_op(
            "CONV_2D", (1, 4, 4, 2), (1, 4, 4, 3), [np.ones((3, 1, 1, 2), I8)], dilationWFactor=2, **CONV
        ),
        "dilation differs",
    ),
    "dense of a sequence": (
        lambda: one_op(
            "FULLY_CONNECTED", (7, 4), (7, 3), [np.ones((3, 4), I8)], options="FullyConnectedOptions"
        ),
        "not one-dimensional",
    ),
    "strided slice": (
        lambda: one_op("STRIDED_SLICE", (8,), (4,), [i32(0), i32(8), i32(2)], options="StridedSliceOptions"),
        "strides other than 1",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_corals_table(name: str) -> None:
    make, word = TABLE[name]
    fate = make()
    assert word in fate.reason
    assert fate.maps is fate.on_tpu is (word == "supported")


def chain(middle: str = "LEAKY_RELU") -> Graph:
    """Convolution, `middle`, dense: the middle one decides where the dense one runs."""
    graph = Graph()
    x = graph.tensor("x", (1, 4, 4, 2), dtype=I8)
    kernel = graph.tensor("k", (3, 1, 1, 2), dtype=I8, values=np.ones(6))
    a, b = graph.tensor("a", (1, 4, 4, 3), dtype=I8), graph.tensor("b", (1, 4, 4, 3), dtype=I8)
    flat = graph.tensor("flat", (1, 48), dtype=I8)
    dense = graph.tensor("d", (5, 48), dtype=I8, values=np.ones(240), scale=[0.1] * 5)
    y = graph.tensor("y", (1, 5), dtype=I8)
    graph.op("CONV_2D", [x, kernel, -1], [a], **CONV)
    graph.op(middle, [a], [b], **({"options": "LeakyReluOptions"} if middle == "LEAKY_RELU" else {}))
    graph.op("RESHAPE", [b], [flat], options="ReshapeOptions", newShape=[1, 48])
    graph.op("FULLY_CONNECTED", [flat, dense, -1], [y], options="FullyConnectedOptions")
    return graph.ends([x], [y])


def test_successors_of_an_unsupported_operation_run_on_the_cpu() -> None:
    readiness = report.readiness(chain().as_model())
    assert [fate.on_tpu for fate in readiness.ops] == [True, False, False, False]
    assert [fate.maps for fate in readiness.ops] == [True, False, True, True]
    assert readiness.split_at == 1
    assert readiness.macs == 16 * 3 * 2 + 5 * 48
    assert readiness.macs_share == pytest.approx(96 / 336)
    assert any("per-channel scales" in risk for risk in readiness.risks)
    whole = report.readiness(chain("RELU").as_model())
    assert (whole.macs_share, whole.split_at) == (1.0, None)


def test_a_float_input_does_not_move_the_graph_to_the_cpu() -> None:
    graph = Graph()
    x, q = graph.tensor("x", (1, 4)), graph.tensor("q", (1, 4), dtype=I8)
    r, y = graph.tensor("r", (1, 4), dtype=I8), graph.tensor("y", (1, 4))
    graph.op("QUANTIZE", [x], [q], version=3)
    graph.op("RELU", [q], [r])
    graph.op("DEQUANTIZE", [r], [y])
    readiness = report.readiness(graph.ends([x], [y]).as_model())
    assert [fate.on_tpu for fate in readiness.ops] == [False, True, False]
    assert any("version 3" in risk for risk in readiness.risks)


def compiled() -> Graph:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4), dtype=I8), graph.tensor("y", (1, 4), dtype=I8)
    graph.op("CUSTOM edgetpu-custom-op", [x], [y])
    return graph.ends([x], [y])


@pytest.mark.slow
def test_a_compiled_model_is_recognized_by_every_command(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "compiled.tflite"
    model.write_bytes(compiled().data())
    for words in (
        ["convert", model, "-o", tmp_path / "o.tflite", "--scheme", "float32"],
        ["evaluate", model, "--data", data],
        ["bundle", model, "-o", tmp_path / "b.eqb", "--name", "b", "--data", data],
    ):
        assert main(["--workspace", str(tmp_path), *map(str, words)]) == 1
        error = capfd.readouterr().err
        assert "error[EQ320]" in error
        assert "compiled for the Edge TPU" in error
        assert f"edgeq bundle {model} -o FILE --golden-from" in error
    assert main(["edgetpu", str(model)]) == 0
    assert "already compiled for the Edge TPU" in capfd.readouterr().out


def fake_compiler(folder: Path, log: str, *, makes: bool, status: int = 0) -> None:
    """Put an `edgetpu_compiler` into a folder that prints a log and copies the model."""
    program = folder / "edgetpu_compiler"
    body = f"""\
import pathlib, shutil, sys
assert sys.argv[1:3] == ["-s", "-o"], sys.argv
model = pathlib.Path(sys.argv[4])
if {makes}:
    shutil.copyfile(model, pathlib.Path(sys.argv[3]) / (model.stem + "_edgetpu.tflite"))
print({log!r})
sys.exit({status})
"""
    (folder / "fake.py").write_text(body)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {folder}/fake.py "$@"\n')
    program.chmod(0o755)


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.slow
def test_an_installed_compiler_is_run(tmp_path: Path, on_path: Path, edgeq: Callable[..., Any]) -> None:
    model = tmp_path / "int8.tflite"
    model.write_bytes(chain("RELU").data())
    fake_compiler(on_path, PARTLY, makes=True)
    result = edgeq("edgetpu", model, "-o", tmp_path / "c.tflite", "--json")
    document = json.loads(result.out)
    assert result.status == 0
    assert (document["schema"], document["on_tpu"], document["compiler"]["cpu_ops"]) == (
        "edgeq.edgetpu/1",
        4,
        4,
    )
    assert (tmp_path / "c.tflite").read_bytes() == model.read_bytes()
    assert "12.5 KiB of weights are streamed over the bus" in edgeq("edgetpu", model).out
    assert json.loads(edgeq("edgetpu", model, "--no-compile", "--json").out)["compiler"] is None


def test_a_failing_compiler_is_reported_in_one_line(
    tmp_path: Path, on_path: Path, edgeq: Callable[..., Any]
) -> None:
    model, output = tmp_path / "int8.tflite", tmp_path / "c.tflite"
    model.write_bytes(chain("RELU").data())
    fake_compiler(on_path, "Internal compiler error. Aborting!", makes=False, status=1)
    result = edgeq("edgetpu", model, "-o", output)
    assert (result.status, result.out) == (1, "")
    assert "error[EQ325]" in result.err
    assert "Internal compiler error" in result.err
    assert not output.exists()


@pytest.mark.slow
def test_the_table_is_used_without_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeq: Callable[..., Any]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = tmp_path / "int8.tflite"
    model.write_bytes(chain().data())
    result = edgeq("edgetpu", model)
    assert result.status == 0
    assert "1 of 4 operations would run on the Edge TPU, 28.6 % of the multiply-accumulates" in result.out
    assert "splits at op 1, LEAKY_RELU" in result.out
    assert "coral.ai" in result.err
    assert "error[EQ325]" in edgeq("edgetpu", model, "-o", tmp_path / "c.tflite").err


@pytest.mark.slow
def test_every_conversion_reports_edge_tpu_readiness(models: Path, data: Path, tmp_path: Path) -> None:
    source = models / "float.tflite"
    done = convert(source, tmp_path / "8.tflite", scheme="int8", calibration=data)
    assert (done.edgetpu.on_tpu, done.edgetpu.macs_share) == (len(done.op_report), 1.0)
    floats = convert(source, tmp_path / "f.tflite", scheme="float32")
    assert floats.edgetpu.on_tpu == 0
    assert floats.edgetpu.split_at is not None
    assert "float32" in floats.edgetpu.split_at.reason


def test_a_file_that_is_not_a_model(tmp_path: Path) -> None:
    from edgeq.conversion.edgetpu import edgetpu as ask

    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"\x20\0\0\0TFL3" + b"\xff" * 40)
    with pytest.raises(ModelError) as caught:
        ask(broken)
    assert caught.value.reported_code == "EQ303"
