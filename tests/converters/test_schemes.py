"""Schemes, calibrators, backends and recipes at the command line, and what is refused there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.errors import ConverterError
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme
from edgeq_converters.worker.jobs import convert as convert_job

from .graphs import Graph
from .nets import quiet

Edgeq = Callable[..., Any]


def converted(result: Any) -> dict[str, Any]:
    assert result.status == 0, result.err
    document: dict[str, Any] = json.loads(result.out)
    return document


def first_line(result: Any) -> str:
    errors: list[str] = [line for line in result.err.splitlines() if line.startswith("error")]
    return errors[0]


@pytest.mark.slow
def test_a_recipe_is_kept_and_gives_the_same_bytes(
    models: Path, data: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    source, recipe = models / "float.tflite", tmp_path / "recipe.json"
    one = converted(
        edgeq("convert", source, "-o", tmp_path / "1.tflite", "--scheme", "int8", "--calibration", data,
              "--calibrator", "percentile:99.9", "--io", "float32", "--save-recipe", recipe, "--json")
    )  # fmt: skip
    kept = json.loads(recipe.read_text("utf-8"))
    assert (kept["calibrator"], kept["io"], kept["scheme"]) == ("percentile:99.9", "float32", "int8")
    again = ["convert", source, "--calibration", data, "--recipe", recipe, "--json"]
    two = converted(edgeq(*again, "-o", tmp_path / "2.tflite"))
    assert two["sha256"] == one["sha256"]
    changed = converted(edgeq(*again, "-o", tmp_path / "3.tflite", "--calibrator", "minmax"))
    assert changed["recipe"] == {**kept, "calibrator": "minmax"}
    assert changed["sha256"] != one["sha256"]


@pytest.mark.slow
def test_backends_from_the_command_line(models: Path, data: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    pytest.importorskip("tensorflow")
    command = ["convert", models / "leaky.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8"]
    command += ["--calibration", data]
    chosen = edgeq(*command, "--json")
    assert converted(chosen)["backend"] == "litert-quantizer"
    assert (
        "edgeq wrote the integer form of LEAKY_RELU for what litert-quantizer leaves in float" in chosen.err
    )
    assert converted(edgeq(*command, "--json", "--backend", "tensorflow"))["backend"] == "tensorflow"
    assert first_line(edgeq(*command, "--backend", "litert")).startswith("error[EQ307]")


@pytest.mark.slow
def test_an_lstm_becomes_integer(models: Path, data: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    with np.load(data) as loaded:
        np.savez(tmp_path / "series.npz", x=loaded["x"][..., 0])
    output = tmp_path / "lstm.tflite"
    command = ["convert", models / "lstm.tflite", "-o", output, "--scheme", "int8", "--json"]
    done = converted(edgeq(*command, "--calibration", tmp_path / "series.npz"))
    assert done["op_report"]["integer"] == done["op_report"]["total"]
    kept = tmp_path / "h.npz"
    edgeq("calibrate", models / "lstm.tflite", "--data", tmp_path / "series.npz", "-o", kept)
    assert first_line(edgeq(*command, "--histograms", kept)).startswith("error[EQ209]")


@pytest.mark.slow
def test_few_samples_give_a_warning(models: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    np.savez(tmp_path / "one.npz", x=np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32))
    result = edgeq("convert", models / "float.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8",
                 "--calibration", tmp_path / "one.npz", "--json")  # fmt: skip
    assert any("only one sample" in warning for warning in converted(result)["warnings"])
    assert not any("only one sample" in note for note in converted(result)["notes"])


@pytest.mark.slow
def test_constant_samples_give_a_warning(models: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    np.savez(tmp_path / "same.npz", x=np.zeros((40, 8, 8, 1), np.float32))
    result = edgeq("convert", models / "float.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8",
                 "--calibration", tmp_path / "same.npz", "--json")  # fmt: skip
    assert any("have the same value over all samples" in each for each in converted(result)["warnings"])


@pytest.mark.slow
def test_what_went_well_is_a_note(models: Path, data: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    result = edgeq("convert", models / "float.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8",
                 "--calibration", data, "--json")  # fmt: skip
    done = converted(result)
    (choice,) = (note for note in done["notes"] if "held-out samples" in note)
    assert f"note: {choice}\n" in result.err
    assert (done["warnings"], "warning:" in result.err) == ([], False)


@pytest.mark.slow
def test_evaluating_on_another_distribution_says_how_much_is_clipped(
    models: Path, data: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    output = tmp_path / "o.tflite"
    edgeq("convert", models / "float.tflite", "-o", output, "--scheme", "int8", "--calibration", data)
    with np.load(data) as loaded:
        np.savez(tmp_path / "wider.npz", x=loaded["x"] * 10, y=loaded["y"])
    own, other = (
        edgeq("evaluate", output, "--data", data),
        edgeq("evaluate", output, "--data", tmp_path / "wider.npz"),
    )
    assert "lie outside" not in own.err
    assert own.status == other.status == 0
    assert "% of the values of input `image` lie outside " in other.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"calibratr": "mse"}, "unknown key 'calibratr'"),
        ({"calibrator": "mze"}, "calibrator: unknown calibrator 'mze'; did you mean 'mse'"),
        ({"calibrator": 3}, "calibrator: expected text"),
        ({"scheme": "int9"}, "scheme: expected one of"),
        ({"schema": "edgeq.recipe/9"}, "edgeq.recipe/9"),
        ({"io": "int16"}, "io: inputs and outputs of the scheme int8 are int8 or float32"),
        ({"float_ops": ["a"]}, "float_ops: only the scheme int8-mixed"),
        ({"float_ops": "a"}, "float_ops: expected a list of names"),
        ({"seed": -1}, "seed: expected an integer from 0"),
        ({"backend": "onnx"}, "backend: expected one of auto, litert, tensorflow"),
        ({"backend": "tensorflow", "scheme": "dynamic", "io": "float32"}, "backend: tensorflow supports"),
    ],
)
def test_a_wrong_recipe_is_a_usage_error_that_names_the_key(
    models: Path, data: Path, tmp_path: Path, edgeq: Edgeq, change: dict[str, object], words: str
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"schema": "edgeq.recipe/1", "scheme": "int8", **change}), "utf-8")
    command = ["convert", models / "float.tflite", "-o", tmp_path / "o.tflite", "--calibration", data]
    result = edgeq(*command, "--recipe", recipe)
    assert result.status == 2
    assert first_line(result).startswith(f"error[EQ101]: {recipe}")
    assert words in first_line(result)


@pytest.mark.parametrize("content", ["", "{", "[]", '"int8"', "\x00"])
def test_an_invalid_recipe_file(models: Path, tmp_path: Path, edgeq: Edgeq, content: str) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(content, "utf-8")
    result = edgeq("convert", models / "float.tflite", "-o", tmp_path / "o.tflite", "--recipe", recipe)
    assert result.status == 2
    assert first_line(result).startswith("error[EQ101]")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give a scheme or --recipe"),
        (["--scheme", "int8", "--calibrator", "percentil"], "did you mean 'percentile'"),
        (["--scheme", "float16", "--io", "int8"], "inputs and outputs of the scheme float16 are float32"),
        (["--scheme", "int4", "--backend", "tensorflow"], "--backend tensorflow: tensorflow supports"),
        (["--scheme", "int8", "--keep-float", "x"], "--keep-float x: only the scheme int8-mixed"),
        (["--recipe", "nowhere.json"], "cannot be read"),
    ],
)
def test_options_that_do_not_go_together(
    models: Path, tmp_path: Path, edgeq: Edgeq, options: list[str], words: str
) -> None:
    result = edgeq("convert", models / "float.tflite", "-o", tmp_path / "o.tflite", *options)
    assert result.status == 2
    assert words in result.err


@pytest.mark.slow
def test_a_float_operation_that_is_not_there(models: Path, data: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    result = edgeq("convert", models / "float.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int8-mixed",
                 "--keep-float", "nothing", "--calibration", data)  # fmt: skip
    assert first_line(result).startswith("error[EQ330]")


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8, Scheme.INT4])
def test_an_operation_without_an_integer_kernel_is_named_before_the_calibration(
    scheme: Scheme, tmp_path: Path
) -> None:
    graph: Any = Graph()
    x, half, middle, y = (graph.tensor(name, (1, 4)) for name in ("x", "half", "middle", "y"))
    graph.op("MUL", (x, graph.tensor("h", (4,), values=[0.5, 1.5, 1.0, 2.0])), (half,), options="MulOptions")
    graph.op("ATAN2", (x, half), (middle,))
    graph.op("TANH", (middle,), (y,))
    source = tmp_path / "angle.tflite"
    source.write_bytes(graph.ends([x], [y]).as_model("angle").data)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    steps: list[str] = []

    def step(what: str, total: int) -> Any:
        steps.append(what)
        return quiet

    with pytest.raises(ConverterError) as caught:
        convert_job.convert(
            source, tmp_path / "o.tflite", recipe=Recipe(scheme=scheme), data=tmp_path / "data.npz",
            workdir=tmp_path, step=step,
        )  # fmt: skip
    assert caught.value.code == "EQ307"
    assert "ATAN2" in str(caught.value.problem)
    assert "calibrate" not in steps
