"""`edgeq run --html --markdown`: outputs are checked before the work, and written whatever the verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.pipeline.markdown import escaped
from tests.pipeline.results import Page

BLUEPRINT = """
schema_version = 1
name = "kws"
prefer = ["size"]
[model]
source = "{folder}/even.tflite"
[data]
calibration = "{folder}/calibration.npz"
evaluation = "{folder}/evaluation.npz"
[variants]
schemes = ["int8"]
io = "float32"
[techniques]
allow = []
[require]
accuracy_min = {accuracy_min}
"""


def written(folder: Path, data: Path, accuracy_min: float = 0.5) -> Path:
    path = folder / "blueprint.toml"
    path.write_text(BLUEPRINT.format(folder=data, accuracy_min=accuracy_min))
    return path


@pytest.fixture
def unread(tmp_path: Path) -> Path:
    """Return a blueprint whose files are there, but are neither models nor data: nothing may read them."""
    for name in ("even.tflite", "calibration.npz", "evaluation.npz"):
        (tmp_path / name).write_bytes(b"")
    return written(tmp_path, tmp_path)


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_an_input_is_not_replaced(unread: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = unread.read_text()
    assert main(["run", str(unread), option, str(unread)]) == 2
    assert f"hint: give another {option}" in capsys.readouterr().err
    assert unread.read_text() == before


def test_one_file_is_not_two_outputs(unread: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = str(unread.with_name("both"))
    assert main(["run", str(unread), "--html", both, "--markdown", both]) == 2
    assert "is both --html and --markdown" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_library_is_reported_before_the_work(
    unread: Path, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["run", str(unread), "--html", str(unread.with_name("page.html"))]) == 2
    error = capsys.readouterr().err
    assert "error[EQ104]" in error
    assert f"{missing} is not installed" in error
    assert "edgeq[dashboard]" in error


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.parametrize(("accuracy_min", "status"), [(0.5, 0), (1.0, 3)])
def test_the_page_and_the_summary_are_those_of_the_run(
    tmp_path: Path,
    made_by: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    accuracy_min: float,
    status: int,
) -> None:
    path = written(tmp_path, made_by("make_planted.py"), accuracy_min)
    page, summary = tmp_path / "page.html", tmp_path / "summary.md"
    words = ["--workspace", str(tmp_path), "run", str(path), "--html", str(page), "--markdown", str(summary)]
    assert main([*words, "--json"]) == status
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (run,) = [each for each in documents if each["schema"] == "edgeq.run/1"]
    shown = Page(page.read_text(encoding="utf-8"))
    assert shown.document["candidates"][0]["gates"] == run["candidates"][0]["gates"]
    assert f"{run['verdict']}." in shown.text
    assert escaped(run["verdict"]) in summary.read_text(encoding="utf-8")
    sizes = {mark["data-name"]: int(mark["data-x"].removesuffix(".0")) for mark in shown.marks["pareto-size"]}
    assert sizes.items() <= {each["name"]: each["size_bytes"] for each in run["candidates"]}.items()
    assert sizes
