"""A float .tflite becomes every scheme in an environment that has no TensorFlow and no Keras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.convert, pytest.mark.slow]
SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8", "int8-mixed", "int4")
ABSENT = ("tensorflow", "tf_keras", "keras")
PROGRAM = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with links to all packages of this one but TensorFlow and Keras."""
    folder = tmp_path_factory.mktemp("lean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    code = []
    for place in (Path(entry) for entry in sys.path if entry and Path(entry).is_dir()):
        if place.name != "site-packages":
            code += [str(place)] if (place / "edgeq").is_dir() or place.name in SOURCES else []
            continue
        for entry in place.iterdir():
            hidden = entry.name.startswith(ABSENT) or entry.suffix == ".pth"
            if not hidden and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    (packages / "edgeq_sources.pth").write_text("\n".join(code) + "\n")
    python = folder / "bin" / "python"
    for name in ABSENT:
        search = f"from importlib.util import find_spec; raise SystemExit(find_spec({name!r}) is not None)"
        assert subprocess.run([str(python), "-c", search], check=False).returncode == 0
    return python


SOURCES = ("converters", "device_agents")


def convert(python: Path, source: Path, scheme: str, tmp_path: Path, shape: tuple[int, ...]) -> Any:
    data = tmp_path / "c.npz"
    np.savez(data, x=np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32))
    words = ["--workspace", tmp_path, "convert", source, "-o", tmp_path / "o.tflite", "--scheme", scheme]
    words += ["--json"] if not scheme.startswith("int") else ["--json", "--calibration", data]
    return subprocess.run(
        [str(python), "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_convolution_becomes_every_scheme(scheme: str, python: Path, models: Path, tmp_path: Path) -> None:
    done = convert(python, models / "float.tflite", scheme, tmp_path, (8, 8, 1))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "tensorflow" not in document["tools"]
    if scheme in {"int8", "int4"}:
        assert document["op_report"]["integer"] == document["op_report"]["total"]


@pytest.mark.parametrize("scheme", ["float16", "int8", "int16x8"])
@pytest.mark.parametrize(("name", "shape"), [("lstm", (8, 8)), ("leaky", (8, 8, 1))])
def test_what_litert_quantizer_does_not_know_becomes_every_scheme(
    name: str, shape: tuple[int, ...], scheme: str, python: Path, models: Path, tmp_path: Path
) -> None:
    done = convert(python, models / f"{name}.tflite", scheme, tmp_path, shape)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["op_report"]
    if scheme == "int8":
        assert report["integer"] == report["total"]


def test_the_error_of_a_full_integer_scheme_names_the_extra(
    python: Path, models: Path, tmp_path: Path
) -> None:
    done = convert(python, models / "angle.tflite", "int8", tmp_path, (8, 8, 1))
    assert done.returncode == 1
    if "error[EQ307]" not in done.stderr:
        pytest.fail(done.stderr)
    assert "`pip install 'edgeq[convert]'` adds TensorFlow's quantizer" in done.stderr
