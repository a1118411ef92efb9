"""Evaluation of real models on real files: figures, JSON, and bad input reported in one line."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli import main
from edgeq.errors import DataError, ModelError
from edgeq.evaluation import OpKind, describe, evaluate, raw_outputs, run

pytestmark = [pytest.mark.convert, pytest.mark.usefixtures("workspace")]


def test_accuracy_of_a_model_with_known_answers(float_model: Path, data: Path) -> None:
    metrics = evaluate(float_model, data)
    assert (metrics.samples, metrics.accuracy) == (60, 0.75)
    assert (metrics.agreement, metrics.output_sqnr_db) == (None, None)


@pytest.mark.slow
def test_against_itself_and_against_float(float_model: Path, int8_model: Path, data: Path) -> None:
    same = evaluate(float_model, data, reference=float_model)
    assert (same.agreement, same.output_sqnr_db) == (1.0, math.inf)
    metrics = evaluate(int8_model, data, reference=float_model)
    assert metrics.agreement is not None
    assert metrics.agreement >= 0.9
    assert metrics.output_sqnr_db is not None
    assert 25 < metrics.output_sqnr_db < 60


@pytest.mark.slow
def test_a_description_has_the_tensors_and_their_quantization(float_model: Path, int8_model: Path) -> None:
    info = describe(int8_model)
    assert [(t.name, t.shape, t.dtype) for t in info.inputs] == [("features", (1, 4), "int8")]
    assert (info.outputs[0].name, info.outputs[0].scale, info.outputs[0].zero_point) == (
        "probability",
        1 / 256,
        -128,
    )
    assert {line.kind for line in info.ops} == {OpKind.INTEGER}
    assert describe(float_model).inputs[0].scale is None


@pytest.mark.slow
def test_raw_outputs_are_in_the_model_s_own_types(float_model: Path, int8_model: Path, data: Path) -> None:
    with np.load(data) as loaded:
        x = loaded["x"]
    (expected,) = raw_outputs(float_model, x)
    exponent = np.exp(x - x.max(axis=1, keepdims=True))
    assert np.allclose(expected, exponent / exponent.sum(axis=1, keepdims=True), atol=1e-5)
    result = run(int8_model, {"features": x})
    assert result.outputs[0].dtype == np.int8
    assert result.outputs[0].shape == (60, 4)
    assert result.inputs[0].dtype == np.int8
    # The recorded inputs, passed back unchanged, give the same outputs.
    assert np.array_equal(raw_outputs(int8_model, [result.inputs[0]])[0], result.outputs[0])


def test_the_json_document_has_the_metrics_and_the_digest(
    float_model: Path, int8_model: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", int8_model, "--data", data, "--reference", float_model, "--json"]
    assert main([str(word) for word in words]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "edgeq.evaluate/1"
    assert set(document["metrics"]) == {
        *("samples", "accuracy", "agreement", "agreement_of", "output_sqnr_db", "outputs", "useless"),
        *("accuracy_ci95", "agreement_ci95", "accuracy_drop", "accuracy_drop_ci95", "smallest_drop"),
    }
    low, high = document["metrics"]["accuracy_ci95"]
    assert low < document["metrics"]["accuracy"] < high
    assert document["metrics"]["useless"] is None
    assert document["metrics"]["samples"] == 60
    assert len(document["model"]["sha256"]) == 64


@pytest.mark.slow
def test_the_text_says_which_drop_so_many_samples_cannot_show(
    float_model: Path, int8_model: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(int8_model), "--data", str(data), "--reference", str(float_model)]) == 0
    lines = capfd.readouterr().out.splitlines()
    (accuracy,) = [line for line in lines if line.startswith("accuracy ") and "drop" not in line]
    assert re.search(r"\d+\.\d % \(95 %: \d+\.\d to \d+\.\d %\)", accuracy)
    assert any(line.startswith("accuracy drop") for line in lines)
    assert any(re.fullmatch(r"60 samples cannot show a drop below \d+\.\d %", line) for line in lines)


def test_text_without_labels_omits_accuracy(
    float_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 4)))
    assert main(["evaluate", str(float_model), "--data", str(path)]) == 0
    out, err = capfd.readouterr()
    assert out.split() == ["metric", "value", "samples", "3"]
    assert "XNNPACK" not in err


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("labels", "code", "words"),
    [
        (np.arange(5) % 4, "EQ206", "expected `y` of shape (6,), got (5,)"),
        (np.zeros(6), "EQ207", "got dtype float64"),
        (np.array([0, 1, 2, 3, 4, 0]), "EQ208", "expected labels from 0 to 3, got 4 at index 4"),
        (np.array([0, 1, -1, 3, 0, 0]), "EQ208", "got -1 at index 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    float_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    labels: np.ndarray,
    code: str,
    words: str,
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.zeros((6, 4)), y=labels)
    assert main(["evaluate", str(float_model), "--data", str(path)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"error[{code}]: {path}: ")
    assert words in err.splitlines()[0]


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "EQ301"), (b"", "EQ302"), (b"text that is no model", "EQ302"), ("half", "EQ303")],
)
def test_files_that_are_not_models_are_refused(
    float_model: Path,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: bytes | str | None,
    code: str,
) -> None:
    path = tmp_path / "bad.tflite"
    if content == "half":
        path.write_bytes(float_model.read_bytes()[:600])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    for words in ([path], [float_model, "--reference", path]):
        assert main(["evaluate", *map(str, words), "--data", str(data)]) == 1
        out, err = capfd.readouterr()
        assert (out, err.startswith(f"error[{code}]: {path}: ")) == ("", True), err
    with pytest.raises(ModelError):
        describe(path)


@pytest.mark.slow
def test_corrupted_models_never_crash_the_caller(int8_model: Path, tmp_path: Path) -> None:
    whole, random, path = int8_model.read_bytes(), np.random.default_rng(4), tmp_path / "altered.tflite"
    codes = []
    for _ in range(12):
        altered = bytearray(whole)
        for position in random.integers(8, len(whole), 20):
            altered[position] = random.integers(256)
        path.write_bytes(altered)
        try:
            describe(path, deadline_s=20)
        except ModelError as error:
            codes.append(error.reported_code)
    assert set(codes) == {"EQ303"}  # some alterations only change a weight, and are a model still


def test_a_reference_of_another_model(
    float_model: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(float_model.read_bytes(), 0)
    graph = model.subgraphs[0]
    graph.outputs = [*graph.outputs, graph.operators[-1].inputs[0]]  # its logits as a second output
    model.signatureDefs = None
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    other = tmp_path / "other.tflite"
    other.write_bytes(bytes(builder.Output()))
    assert main(["evaluate", str(float_model), "--data", str(data), "--reference", str(other)]) == 1
    assert capfd.readouterr().err.startswith(f"error[EQ312]: {other}: its outputs differ from those of")


def test_bad_arrays_in_python(float_model: Path) -> None:
    with pytest.raises(DataError) as caught:
        raw_outputs(float_model, np.zeros((2, 5)))
    assert caught.value.reported_code == "EQ203"
