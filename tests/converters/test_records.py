"""The Python API records what the command line records: the same kinds, subjects and bodies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.blueprint import load_blueprint
from edgeq.cli import main
from edgeq.conversion import calibrate, merge_calibrations, tune
from edgeq.evaluation.sensitivity import analyze_sensitivity
from edgeq.search.latencies import ThisMachine
from edgeq.search.run import search
from edgeq.selection import evaluate_variants
from edgeq.store import Store

pytestmark = pytest.mark.convert

BLUEPRINT = """
schema_version = 1
name = "tiny"
[model]
source = "float.tflite"
[data]
calibration = "data.npz"
evaluation = "data.npz"
[variants]
schemes = ["int8"]
"""
FLOAT, INT8, DATA, HISTOGRAMS = Path("float.tflite"), Path("int8.tflite"), Path("data.npz"), Path("h.npz")


def by_command() -> None:
    data = ["--data", "data.npz"]
    for words in (
        ["convert", "float.tflite", "-o", "int8.tflite", "--scheme", "int8", "--calibration", "data.npz"],
        ["calibrate", "float.tflite", *data, "-o", "h.npz"],
        ["calibrate", "float.tflite", "--data", "other.npz", "-o", "other-h.npz"],
        ["calibrate", "--merge", "h.npz", "other-h.npz", "-o", "both.npz"],
        ["evaluate", "int8.tflite", *data, "--reference", "float.tflite"],
        ["sensitivity", "float.tflite", "--calibration", "data.npz", "--evaluation", "data.npz"],
        ["select", "blueprint.toml", "--reference", "float.tflite", "int8.tflite"],
        ["tune", "model.keras", "--qat", "-o", "tuned.keras", "--training", "data.npz", "--epochs", "1"],
        ["search", "blueprint.toml", "--candidates", "1"],
    ):
        assert main(words) == 0, words


def by_api() -> None:
    edgeq.convert(FLOAT, INT8, scheme="int8", calibration=DATA)
    calibrate(FLOAT, DATA, HISTOGRAMS)
    calibrate(FLOAT, Path("other.npz"), Path("other-h.npz"))
    merge_calibrations([HISTOGRAMS, Path("other-h.npz")], Path("both.npz"))
    edgeq.evaluate(INT8, DATA, reference=FLOAT)
    analyze_sensitivity(FLOAT, calibration=DATA, evaluation=DATA)
    blueprint = load_blueprint(Path("blueprint.toml"))
    baseline, variants = evaluate_variants([INT8], reference=FLOAT, blueprint=blueprint)
    edgeq.select(variants, baseline=baseline, blueprint=blueprint)
    tune(Path("model.keras"), Path("tuned.keras"), training=DATA, epochs=1)
    search(blueprint, workspace=Path("."), timing=ThisMachine(), count=1)


def without_times(value: Any, folder: Path) -> Any:
    """Return a record's body without durations, measured latencies and the workspace's own path."""
    if isinstance(value, dict):
        return {
            key: without_times(item, folder)
            for key, item in value.items()
            if key not in {"seconds", "latency_ns", "latencies", "gates", "on_front"}
        }
    if isinstance(value, list):
        return [without_times(item, folder) for item in value]
    return value.replace(str(folder), "WORKSPACE") if isinstance(value, str) else value


def records(folder: Path) -> list[tuple[str, str, Any]]:
    with Store.open(folder) as store:
        runs = store.runs(limit=1000)
    return [(run.kind, run.subject, without_times(dict(run.body), folder)) for run in reversed(runs)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_ways_leave_the_same_records(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    left: dict[str, list[tuple[str, str, Any]]] = {}
    ways: dict[str, Callable[[], None]] = {"command": by_command, "api": by_api}
    for name, way in ways.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in ("float.tflite", "model.keras"):
            shutil.copy(models / file, folder / file)
        shutil.copy(data, folder / "data.npz")
        with np.load(data) as arrays:
            np.savez(folder / "other.npz", x=arrays["x"] * 0.5, y=arrays["y"])
        (folder / "blueprint.toml").write_text(BLUEPRINT)
        monkeypatch.chdir(folder)
        way()
        left[name] = records(folder)
    kinds = [kind for kind, _, _ in left["command"]]
    assert kinds[:8] == [
        *("convert", "calibrate", "calibrate", "calibrate"),
        *("evaluate", "sensitivity", "select", "tune"),
    ]
    assert kinds[-1] == "search"
    assert left["api"] == left["command"]


@pytest.mark.slow
def test_a_lineage_is_found_for_what_the_api_converted(
    models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "int8.tflite"
    edgeq.convert(models / "float.tflite", output, scheme="int8", calibration=data)
    capsys.readouterr()
    assert main(["lineage", str(output)]) == 0
    assert "float.tflite" in capsys.readouterr().out


@pytest.mark.slow
def test_a_given_store_gets_the_record(models: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "elsewhere"
    with Store.open(workspace) as store:
        edgeq.convert(models / "float.tflite", tmp_path / "f.tflite", scheme="float16", store=store)
        assert [run.kind for run in store.runs()] == ["convert"]
    assert not (tmp_path / ".edgeq").exists()
