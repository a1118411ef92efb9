"""Every command that writes or ranks a model says that it is useless, and refuses it with `--strict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .graphs import Graph
from .test_useless import SIZES, normalizing

pytestmark = [pytest.mark.convert, pytest.mark.slow]
Run = Callable[..., Any]
BLUEPRINT = """
schema_version = 1
name = "b"
prefer = ["size"]
[model]
source = "{source}"
[data]
calibration = "{data}"
evaluation = "{data}"
[variants]
schemes = {schemes}
"""


def overflowing(path: Path) -> Path:
    """Write a model whose weights have no float16 value."""
    graph = Graph()
    x, y = graph.tensor("x", (1, 3)), graph.tensor("y", (1, 2))
    weights = graph.tensor("weights", (2, 3), values=[[1e6, 1, 1], [1e6, -1, 1]])
    bias = graph.tensor("bias", (2,), values=[0, 0])
    graph.op("FULLY_CONNECTED", [x, weights, bias], [y], options="FullyConnectedOptions")
    path.write_bytes(graph.ends([x], [y]).data())
    return path


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Features of very different size, without labels."""
    path = tmp_path / "uneven.npz"
    np.savez(path, x=(np.random.default_rng(0).normal(size=(80, 3)) * SIZES).astype(np.float32))
    return path


@pytest.fixture
def shuffled(tunable: Path, tmp_path: Path) -> Path:
    """Samples of the trained models with labels that say nothing about them."""
    path = tmp_path / "shuffled.npz"
    with np.load(tunable / "test.npz") as loaded:
        np.savez(path, x=loaded["x"], y=np.random.default_rng(7).permutation(loaded["y"]))
    return path


def refused(result: Any, *outputs: Path) -> None:
    """Check that a command refused a useless result and wrote nothing."""
    assert result.status == 1, result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("error")]
    assert line.startswith("error[EQ334]: ")
    assert "useless" in line
    assert not [path for path in outputs if path.exists()]


def warned(result: Any, *outputs: Path) -> None:
    """Check that a command wrote a useless result and said so."""
    assert result.status == 0, result.err
    assert any(line.startswith("warning: ") and "useless" in line for line in result.err.splitlines())
    assert all(path.exists() for path in outputs)


@pytest.mark.parametrize("scheme", ["int8", "int16x8", "int4", "int8-mixed"])
def test_convert(scheme: str, uneven: Path, tmp_path: Path, edgeq: Run) -> None:
    model, output = normalizing(tmp_path / "m.tflite"), tmp_path / "q.tflite"
    words = ["convert", model, "-o", output, "--scheme", scheme, "--calibration", uneven]
    if scheme == "int8-mixed":
        words += ["--keep-float", "y"]  # what comes before it has lost the answer
    refused(edgeq(*words, "--strict"), output)
    warned(edgeq(*words), output)


def test_convert_prune(tunable: Path, shuffled: Path, tmp_path: Path, edgeq: Run) -> None:
    output = tmp_path / "q.tflite"
    words = [
        *("convert", tunable / "sequential.keras", "-o", output, "--scheme", "float32"),
        *("--prune", "channels:0.5", "--training", tunable / "train.npz", "--validation", shuffled),
        *("--epochs", 1),
    ]
    # The samples are those of test.npz: only the labels of the validation are wrong. What happens without
    # --strict is decided where `test_convert` shows it.
    refused(edgeq(*words, "--strict"), output)


def test_tune(tunable: Path, shuffled: Path, tmp_path: Path, edgeq: Run) -> None:
    output = tmp_path / "tuned.keras"
    words = [
        *("tune", tunable / "sequential.keras", "--qat", "-o", output, "--epochs", 1),
        *("--training", tunable / "train.npz", "--validation", shuffled),
    ]
    refused(edgeq(*words, "--strict"), output, tmp_path / "tuned.recipe.json")
    warned(edgeq(*words), output)


def test_evaluate(uneven: Path, tmp_path: Path, edgeq: Run) -> None:
    model, output = normalizing(tmp_path / "m.tflite"), tmp_path / "q.tflite"
    warned(edgeq("convert", model, "-o", output, "--scheme", "int8", "--calibration", uneven), output)
    words = ["evaluate", output, "--data", uneven, "--reference", model]
    refused(edgeq(*words, "--strict"))
    warned(edgeq(*words))
    warned(edgeq("reproduce", output))


def test_evaluate_without_a_reference(tmp_path: Path, edgeq: Run) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 3)), graph.tensor("y", (1, 3))
    graph.op("RSQRT", [x], [y], options=None)
    model, data = tmp_path / "m.tflite", tmp_path / "d.npz"
    model.write_bytes(graph.ends([x], [y]).data())
    np.savez(data, x=-np.ones((4, 3), np.float32))
    warned(edgeq("evaluate", model, "--data", data))
    refused(edgeq("evaluate", model, "--data", data, "--strict"))


def test_sensitivity(uneven: Path, tmp_path: Path, edgeq: Run) -> None:
    model = normalizing(tmp_path / "m.tflite")
    warned(edgeq("sensitivity", model, "--calibration", uneven, "--evaluation", uneven))


def test_search(uneven: Path, tmp_path: Path, edgeq: Run) -> None:
    output, blueprint = tmp_path / "q.tflite", tmp_path / "b.toml"
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    data = tmp_path / "c.npz"
    np.savez(data, x=rows)
    source = overflowing(tmp_path / "m.tflite")
    blueprint.write_text(BLUEPRINT.format(source=source, data=data, schemes='["float16"]'))
    words = ["search", blueprint, "-o", output, "--candidates", 1]
    refused(edgeq(*words, "--strict"), output)
    warned(edgeq(*words), output)


def test_search_prefers_a_useful_candidate(uneven: Path, tmp_path: Path, edgeq: Run) -> None:
    blueprint = tmp_path / "b.toml"
    source = normalizing(tmp_path / "m.tflite")
    blueprint.write_text(BLUEPRINT.format(source=source, data=uneven, schemes='["int8", "float16"]'))
    result = edgeq("search", blueprint, "--candidates", 1, "--strict")
    assert result.status == 0, result.err
    assert "int8 is useless; float16 meets every limit" in result.out


def test_select(uneven: Path, tmp_path: Path, edgeq: Run) -> None:
    model, useless, good = normalizing(tmp_path / "m.tflite"), tmp_path / "q.tflite", tmp_path / "f.tflite"
    for output, scheme in ((useless, "int8"), (good, "float32")):
        made = edgeq("convert", model, "-o", output, "--scheme", scheme, "--calibration", uneven)
        assert made.status == 0, made.err
    blueprint = tmp_path / "b.toml"
    blueprint.write_text(BLUEPRINT.format(source=model, data=uneven, schemes='["int8"]'))
    words = ["select", blueprint, "--reference", model, useless]
    refused(edgeq(*words, "--strict"))
    warned(edgeq(*words))
    result = edgeq(*words, good, "--strict")
    assert result.status == 0, result.err
    assert "chosen: f " in result.err


def test_bundle(tunable: Path, shuffled: Path, tmp_path: Path, edgeq: Run) -> None:
    model, output = tmp_path / "m.tflite", tmp_path / "m.eqb"
    source = tunable / "residual.keras"
    assert edgeq("convert", source, "-o", model, "--scheme", "float32").status == 0
    words = ["bundle", model, "-o", output, "--name", "m", "--data"]
    refused(edgeq(*words, shuffled, "--strict"), output)
    warned(edgeq(*words, shuffled), output)
    result = edgeq(*words, tunable / "test.npz", "--strict")
    assert result.status == 0, result.err
    assert "useless" not in result.err
