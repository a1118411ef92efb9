"""`edgeq bundle --golden-from`: a model compiled for the Edge TPU, and the one it was compiled from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)

from edgeq.bundle import read_bundle
from edgeq.cli import main
from edgeq_converters.edgetpu.counterpart import require_counterpart
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from tests import compiled_models
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert


def _model(content: bytes, subject: str = "int8_edgetpu.tflite") -> Model:
    return Model(data=content, subject=subject)


SOURCE = _model(compiled_models.source(), "int8.tflite")


def test_a_compiled_model_has_the_inputs_and_outputs_of_its_source() -> None:
    require_counterpart(_model(compiled_models.compiled()), SOURCE)
    # The compiler may drop the signature, which has the plain name.
    require_counterpart(_model(compiled_models.compiled(name="serving_default_x:0")), SOURCE)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "other"}, "a name of the inputs differs, expected x, got other"),
        ({"width": 8}, "`x` differs, expected (1, 4) of int8"),
        ({"scale": 0.25}, "scale 0.5, zero point 0, got (1, 4) of int8, scale 0.25"),
        ({"dtype": np.float32}, "got (1, 4) of float32"),
        ({"outputs": 2}, "the number of outputs differs, expected 1, got 2"),
    ],
)
def test_a_model_that_was_compiled_from_another_one_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConverterError) as caught:
        require_counterpart(_model(compiled_models.compiled(**change)), SOURCE)
    assert caught.value.code == "EQ312"
    assert "it was not compiled from int8.tflite" in str(caught.value)
    assert text in str(caught.value)


def test_the_two_files_cannot_be_exchanged() -> None:
    compiled = _model(compiled_models.compiled())
    for pair, code in (
        ((SOURCE, SOURCE), "EQ335"),
        ((compiled, compiled), "EQ320"),
        ((SOURCE, compiled), "EQ335"),
    ):
        with pytest.raises(ConverterError) as caught:
            require_counterpart(*pair)
        assert caught.value.code == code


@pytest.fixture
def folder(workspace: Path) -> Path:
    """A workspace with both models and data."""
    (workspace / "int8.tflite").write_bytes(compiled_models.source())
    (workspace / "int8_edgetpu.tflite").write_bytes(compiled_models.compiled())
    np.savez(workspace / "x.npz", x=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    return workspace


def _bundle(*options: str, model: str = "int8_edgetpu.tflite") -> int:
    return main(["bundle", model, "-o", "m.eqb", "--name", "m", "--data", "x.npz", *options])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ([], ["coral"]),
        (["--with-cpu"], []),
        (["--kind", "raspberry-pi"], ["raspberry-pi"]),
        (["--with-cpu", "--kind", "coral"], ["coral"]),
    ],
)
def test_a_compiled_model_is_bundled_with_the_outputs_of_its_source(
    folder: Path, options: list[str], kinds: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bundle("--golden-from", "int8.tflite", *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["golden_samples"] == 16
    bundle = read_bundle(folder / "m.eqb")
    files = {name: bundle.read(entry.sha256) for name, entry in bundle.parsed.files.items()}
    assert files["model.tflite"] == compiled_models.compiled()
    with_cpu = "--with-cpu" in options
    assert files.get("model-cpu.tflite") == (compiled_models.source() if with_cpu else None)
    assert bundle.manifest.get("fallback") == ({"file": "model-cpu.tflite"} if with_cpu else None)
    assert bundle.manifest["requires"]["kinds"] == kinds
    # Its integers need not be equal on the TPU, even beside the runtime that made them.
    assert bundle.manifest["golden"]["runtime"]["kernels"] == "xnnpack"
    with np.load(io.BytesIO(files["golden.npz"])) as golden:
        np.testing.assert_array_equal(golden["output_0"], golden["input_0"])
    assert len(bundle.manifest["lineage"]["compiled_from"]) == 64


@pytest.mark.slow
def test_what_does_not_fit_is_one_line_and_makes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other_edgetpu.tflite").write_bytes(compiled_models.compiled(width=8))
    built = Graph()
    x, y = built.tensor("x", (1, 4)), built.tensor("y", (1, 4))
    built.op("ADD", [x, x], [y], options="AddOptions")
    (folder / "float.tflite").write_bytes(built.ends([x], [y]).data())
    source = ["--golden-from", "int8.tflite"]
    cases: list[tuple[str, list[str], int, str, str]] = [
        ("int8_edgetpu.tflite", [], 1, "EQ320", "edgeq bundle int8_edgetpu.tflite -o FILE --golden-from"),
        ("int8_edgetpu.tflite", ["--golden-from", "float.tflite"], 1, "EQ312", "of float32"),
        ("int8_edgetpu.tflite", ["--golden-from", "int8_edgetpu.tflite"], 1, "EQ320", "compiled"),
        ("int8_edgetpu.tflite", ["--golden-from", "absent.tflite"], 1, "EQ301", "absent.tflite"),
        ("int8_edgetpu.tflite", ["--golden-from", "x.npz"], 1, "EQ302", "x.npz"),
        ("int8_edgetpu.tflite", ["--with-cpu"], 2, "EQ101", "--golden-from"),
        ("other_edgetpu.tflite", source, 1, "EQ312", "(1, 8)"),
        ("int8.tflite", source, 1, "EQ335", "leave out --golden-from"),
    ]
    for model, options, status, code, text in cases:
        assert _bundle(*options, model=model) == status
        err = capsys.readouterr().err
        errors = [line for line in err.splitlines() if line.startswith("error")]
        assert len(errors) == 1, err
        assert f"error[{code}]" in errors[0]
        assert text in err
        assert not (folder / "m.eqb").exists()
