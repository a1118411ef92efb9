"""ONNX sources: open sizes in every form, branches, states, unknown operators, public networks."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.sources import onnx_environment
from edgeq_converters.sources.load import load_source
from edgeq_converters.sources.onnx_interface import declared
from edgeq_converters.sources.parity import check_parity
from edgeq_converters.sources.types import SourceOptions

pytestmark = [pytest.mark.convert, pytest.mark.slow]
Edgeq = Callable[..., Any]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@pytest.fixture(scope="module")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small models, made by the environment's Python."""
    try:
        python = onnx_environment.made(lambda _what: None)
    except ConverterError as error:
        pytest.skip(f"onnx2tf's environment: {error}")
    folder = tmp_path_factory.mktemp("onnx")
    script = Path(__file__).with_name("make_onnx.py")
    done = subprocess.run(
        [str(python), "-I", str(script), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def parity_db(source: Path, folder: Path, options: SourceOptions) -> tuple[Model, float]:
    """Return a source's float .tflite and how near it comes to ONNX Runtime on random samples."""
    loaded = load_source(source, folder, announce=lambda _what: None, options=options)
    assert loaded.reference is not None
    return loaded.model, check_parity(loaded.model, loaded.reference, samples=None, seed=0).sqnr_db


def refusal(source: Path, folder: Path, options: SourceOptions) -> ConverterError:
    with pytest.raises(ConverterError) as caught:
        load_source(source, folder, announce=lambda _what: None, options=options)
    return caught.value


SIZES: Shapes = (("image", (1, 3, 16, 12)),)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("batch_unset", ()), ("batch_zero", ()), ("batch_minus", ()), ("open", SIZES), ("open_minus", SIZES)],
)
def test_a_batch_becomes_one_and_other_open_sizes_are_given(
    onnx_models: Path, name: str, shapes: Shapes, tmp_path: Path
) -> None:
    source = onnx_models / f"{name}.onnx"
    model, sqnr_db = parity_db(source, tmp_path, SourceOptions(shapes=shapes))
    assert [tensor.shape for tensor in model.inputs] == [(1, 16, 12, 3)]
    assert sqnr_db > 100


def test_inputs_and_outputs_are_read_without_the_package(onnx_models: Path) -> None:
    classifier, stateful = (declared(onnx_models / name) for name in ("classifier.onnx", "state.onnx"))
    assert classifier is not None
    assert stateful is not None
    assert [(each.name, each.shape) for each in (*classifier.inputs, *classifier.outputs)] == [
        ("image", (-1, 3, 16, 12)),
        ("logits", (-1, 5)),
        ("features", (-1, 8, 8, 6)),
    ]
    assert [(each.name, each.shape) for each in stateful.inputs] == [
        ("x", (-1, 6)),
        ("state", (2, -1, 4)),
        ("gain", ()),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SourceOptions(), "expected fixed sizes, got (1, 3, ?, ?)"),
        (SourceOptions(shapes=(("image", (1, 4, 16, 12)),)), "is not one that the model takes"),
        (SourceOptions(shapes=(("picture", (1, 3, 16, 12)),)), "the model has no input `picture`"),
        (SourceOptions(constants=(("picture", 1.0),)), "the model has no input `picture`"),
        (SourceOptions(signature="serve"), "--signature is for SavedModel and .tflite"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(
    onnx_models: Path, options: SourceOptions, words: str, tmp_path: Path
) -> None:
    error = refusal(onnx_models / "open_minus.onnx", tmp_path, options)
    assert error.code in {"EQ306", "EQ333"}
    assert words.replace("(1, 3, ?, ?)", "(?, 3, ?, ?)") in str(error)
    assert error.hint


@pytest.mark.parametrize(("length", "rate"), [(6, 16000), (6, 8000)])
def test_branches_on_shapes_and_constants_are_decided(
    onnx_models: Path, length: int, rate: int, tmp_path: Path
) -> None:
    options = SourceOptions(shapes=(("x", (1, length)),), constants=(("sr", float(rate)),))
    model, sqnr_db = parity_db(onnx_models / "nested.onnx", tmp_path, options)
    assert [tensor.name for tensor in model.inputs] == ["x"]
    assert sqnr_db > 100


def test_a_branch_on_a_value_is_refused_by_name(onnx_models: Path, tmp_path: Path) -> None:
    error = refusal(onnx_models / "by_value.onnx", tmp_path, SourceOptions(shapes=(("x", (1, 6)),)))
    assert error.code == "EQ305"
    assert str(error).endswith("operators of the model: IF")
    assert "--constant NAME=NUMBER" in str(error.hint)


@pytest.mark.parametrize(("value", "got"), [(1.5, "got 1.5"), (1e30, "got 1e+30")])
def test_a_constant_must_fit_the_type(onnx_models: Path, value: float, got: str, tmp_path: Path) -> None:
    options = SourceOptions(shapes=(("x", (1, 6)),), constants=(("sr", value),))
    error = refusal(onnx_models / "nested.onnx", tmp_path, options)
    assert (error.code, got in str(error)) == ("EQ306", True)


def test_a_state_keeps_its_shape_and_scalars_work(onnx_models: Path, tmp_path: Path) -> None:
    options = SourceOptions(shapes=(("state", (2, 1, 4)),))
    model, sqnr_db = parity_db(onnx_models / "state.onnx", tmp_path, options)
    shapes = {tensor.name: tensor.shape for tensor in (*model.inputs, *model.outputs)}
    assert (shapes["state"], shapes["next"]) == ((2, 1, 4), (2, 1, 4))
    assert [tensor.name for tensor in model.inputs] == ["x", "state", "gain"]
    assert sqnr_db > 100


def test_operators_that_onnx2tf_does_not_know_are_named(onnx_models: Path, tmp_path: Path) -> None:
    error = refusal(onnx_models / "foreign.onnx", tmp_path, SourceOptions())
    assert (error.code, "com.example.Blur (2)" in str(error)) == ("EQ305", True)


def test_it_becomes_a_full_integer_model_and_is_reproduced(
    onnx_models: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    calibration = tmp_path / "c.npz"  # channels first, as the source has them
    np.savez(calibration, x=np.random.default_rng(1).normal(size=(60, 3, 16, 12)).astype(np.float32))
    source, output = onnx_models / "classifier.onnx", tmp_path / "int8.tflite"
    command = ["--workspace", tmp_path, "convert", source, "-o", output, "--scheme", "int8"]
    result = edgeq(*command, "--calibration", calibration, "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert document["parity"]["sqnr_db"] > 100
    assert document["op_report"]["integer"] == document["op_report"]["total"]
    assert [tensor["shape"] for tensor in document["inputs"]] == [[1, 16, 12, 3]]
    assert [tensor["shape"] for tensor in document["outputs"]] == [[1, 5], [1, 8, 8, 6]]
    assert document["tools"]["onnx2tf"] == onnx_environment.VERSION
    assert "input `image` is channels last" in result.err
    assert "ONNX opset 17: onnx2tf" in result.err
    again = edgeq("--workspace", tmp_path, "reproduce", output)
    assert again.status == 0, again.err


VAD: Shapes = (("input", (1, 576)), ("state", (2, 1, 128)))
PUBLIC = {
    "magika": ("magika==1.0.3", "models/standard_v3_3/model.onnx", SourceOptions()),
    "cls": (
        "rapidocr-onnxruntime==1.4.4",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        SourceOptions(shapes=(("x", (1, 3, 48, 192)),)),
    ),
    "rec": (
        "rapidocr-onnxruntime==1.4.4",
        "ch_PP-OCRv4_rec_infer.onnx",
        SourceOptions(shapes=(("x", (1, 3, 48, 320)),)),
    ),
    "det": (
        "rapidocr-onnxruntime==1.4.4",
        "ch_PP-OCRv4_det_infer.onnx",
        SourceOptions(shapes=(("x", (1, 3, 320, 320)),)),
    ),
    "vad": (
        "silero-vad==6.2.3",
        "data/silero_vad.onnx",
        SourceOptions(shapes=VAD, constants=(("sr", 16000.0),)),
    ),
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("wheels")

    def fetched(requirement: str) -> Path:
        name = requirement.partition("==")[0].replace("-", "_")
        if not list(folder.glob(f"{name}-*.whl")):
            argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-input", "-d"]
            done = subprocess.run(
                [*argv, str(folder), requirement], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"{requirement} cannot be downloaded: {done.stderr.strip()[-200:]}")
        return next(folder.glob(f"{name}-*.whl"))

    return fetched


@pytest.mark.parametrize("name", PUBLIC)
def test_public_networks_convert_at_parity(
    name: str, onnx_models: Path, wheels: Callable[[str], Path], tmp_path: Path
) -> None:
    assert onnx_models.is_dir()  # the environment is there
    requirement, member, options = PUBLIC[name]
    with zipfile.ZipFile(wheels(requirement)) as archive:
        (place,) = (entry for entry in archive.namelist() if entry.endswith(member))
        source = tmp_path / "model.onnx"
        source.write_bytes(archive.read(place))
    _, sqnr_db = parity_db(source, tmp_path, options)
    assert sqnr_db > 70
