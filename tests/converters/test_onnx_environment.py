"""The environment of onnx2tf: made once, whole or not at all, and one line where it cannot be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeq import doctor
from edgeq.cli import main
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import onnx_environment

# The real steps with one tiny package in place of the real ones, which a folder serves instead of an index.
MAKE = """
import sys, json
from edgeq_converters.sources import onnx_environment as environment
environment.PACKAGES, environment._IMPORTS = (sys.argv[1],), "import tiny_part"
announced = []
print(json.dumps([str(environment.made(announced.append)), announced]))
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder with one wheel as pip's only source."""
    folder = tmp_path / "served"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_part-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_part.py", "")
        info = "tiny_part-1.0.dist-info/"
        archive.writestr(f"{info}METADATA", "Metadata-Version: 2.1\nName: tiny-part\nVersion: 1.0\n")
        archive.writestr(f"{info}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeq"


def start(requirement: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, requirement], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_make_it_once(served: Path) -> None:
    served.mkdir(parents=True)
    left = served / ".onnx2tf-killed"  # of a build that was killed
    left.mkdir()
    both = [start("tiny-part==1.0") for _ in range(2)]
    answers = [json.loads(process.communicate()[0]) for process in both]
    assert answers[0][0] == answers[1][0]
    assert sorted(len(announced) for _, announced in answers) == [0, 1]
    python = Path(answers[0][0])
    subprocess.run([str(python), "-I", "-c", "import tiny_part"], check=True)
    assert sorted(path.name for path in served.iterdir()) == [".onnx2tf.lock", python.parent.parent.name]
    python.unlink()  # as if its interpreter had been uninstalled
    python.symlink_to("/nowhere/python3")
    repaired, announced = json.loads(start("tiny-part==1.0").communicate()[0])
    assert (repaired, len(announced)) == (str(python), 1)
    subprocess.run([repaired, "-I", "-c", "import tiny_part"], check=True)


@pytest.mark.slow
def test_a_package_that_does_not_exist_leaves_nothing_behind(served: Path) -> None:
    _, err = start("no-such-part==1.0").communicate()
    assert "No matching distribution found for no-such-part==1.0" in err
    assert [path.name for path in served.iterdir()] == [".onnx2tf.lock"]


@pytest.mark.slow
def test_without_an_index_the_command_says_so_in_one_line(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    source = tmp_path / "m.onnx"
    source.write_bytes(b"\x08\x08\x12\x07pytorch")
    output = tmp_path / "o.tflite"
    status = main(
        ["--workspace", str(tmp_path), "convert", str(source), "-o", str(output), "--scheme", "float32"]
    )
    out, err = capfd.readouterr()
    assert (status, out, output.exists()) == (1, "", False)
    assert "error[EQ336]: onnx2tf 2.6.9: the environment of onnx2tf cannot be installed: " in err
    assert "the package index cannot be reached" in err
    assert "Traceback" not in err


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cache"
    file.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    with pytest.raises(ConverterError) as caught:
        onnx_environment.made(lambda _what: None)
    assert caught.value.code == "EQ336"
    assert str(file) in str(caught.value.hint)


def test_doctor_says_whether_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def detail() -> str:
        (check,) = (check for check in doctor.examine_host(tmp_path) if check.name == "onnx2tf")
        assert (check.health.value, check.fix) == ("ok", None)
        return check.detail

    assert detail().startswith("none yet; the first ONNX source installs")
    python = onnx_environment.folder() / "bin" / "python"
    python.parent.mkdir(parents=True)
    os.symlink(sys.executable, python)
    assert detail() == f"{onnx_environment.VERSION} in {onnx_environment.folder()}"
