"""PyTorch sources, really converted where the extra is installed, named where it is not."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_converters.sources.detect import SourceKind, detect

pytestmark = pytest.mark.convert
Edgeq = Callable[..., Any]
PACKAGES = {"torch": "litert_torch"}
NAMES = {"torch": "classifier.pt2"}


@pytest.fixture(scope="module", params=PACKAGES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(extra, folder with its models), where the extra is installed."""
    extra = str(request.param)
    if find_spec(PACKAGES[extra]) is None:
        pytest.skip(f"the extra {extra} is not installed")
    folder = tmp_path_factory.mktemp(extra)
    script = Path(__file__).with_name("make_exported.py")
    done = subprocess.run(
        [sys.executable, str(script), extra, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return extra, folder


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Samples as PyTorch has them: channels first."""
    path = tmp_path / "c.npz"
    np.savez(path, x=np.random.default_rng(1).normal(size=(60, 3, 16, 12)).astype(np.float32))
    return path


def test_it_becomes_a_full_integer_model_that_agrees(
    exported: tuple[str, Path], calibration: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    extra, folder = exported
    source, output = folder / NAMES[extra], tmp_path / "int8.tflite"
    command = ["--workspace", tmp_path, "convert", source, "-o", output, "--scheme", "int8"]
    result = edgeq(*command, "--calibration", calibration, "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    parity = document["parity"]
    assert (parity["samples"], parity["data"], parity["repeatable"]) == (16, "calibration", True)
    assert parity["sqnr_db"] > 100
    assert parity["max_abs_difference"] < 1e-4
    assert document["op_report"]["integer"] == document["op_report"]["total"]
    assert [tensor["shape"] for tensor in document["inputs"]] == [[1, 3, 16, 12]]
    assert "litert-torch" in document["tools"]
    again = edgeq("--workspace", tmp_path, "reproduce", output)  # also shows that the source is untouched
    assert again.status == 0, again.err


def test_open_sizes_and_damaged_files(exported: tuple[str, Path], tmp_path: Path, edgeq: Edgeq) -> None:
    extra, folder = exported
    suffix, output = Path(NAMES[extra]).suffix, tmp_path / "o.tflite"
    result = edgeq("convert", folder / f"open{suffix}", "-o", output, "--scheme", "float32")
    assert result.status == 1
    assert "error[EQ306]" in result.err
    result = edgeq(
        "convert", folder / f"open{suffix}", "-o", output, "--scheme", "float32", "--shape", "x=1,3,16,20"
    )
    assert result.status == 0, result.err
    output.unlink()
    half = tmp_path / f"half{suffix}"
    whole = (folder / NAMES[extra]).read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    result = edgeq("convert", half, "-o", output, "--scheme", "float32")
    assert result.status == 1
    assert "error[EQ305]" in result.err
    assert "truncated or damaged" in result.err
    result = edgeq("convert", folder / "checkpoint.pt", "-o", output, "--scheme", "float32")
    assert "error[EQ302]" in result.err
    assert "torch.export.save" in result.err
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("extra", PACKAGES)
def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    extra: str, tmp_path: Path, edgeq: Edgeq
) -> None:
    if find_spec(PACKAGES[extra]) is not None:
        pytest.skip(f"the extra {extra} is installed")
    source = tmp_path / NAMES[extra]
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("classifier/archive_format", "pt2")
    result = edgeq("convert", source, "-o", tmp_path / "o.tflite", "--scheme", "float32")
    assert (result.status, result.out) == (2, "")
    assert f"error[EQ104]: edgeq[{extra}]: " in result.err
    assert f"hint: pip install 'edgeq[{extra}]'" in result.err


def test_the_kind_of_a_source_follows_from_its_content(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    for name, kind in {
        "config.json": SourceKind.KERAS,
        "m/archive_format": SourceKind.TORCH,
        "serialized_exported_program.json": SourceKind.TORCH,
    }.items():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
        assert detect(path) is kind
    bare = tmp_path / "model.onnx"
    bare.write_bytes(b"\x08\x08")
    assert detect(bare) is SourceKind.ONNX
