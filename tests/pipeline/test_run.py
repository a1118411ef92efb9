"""Runs of real models: each phase where it is needed, reuse, interruption, and the command's output."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.blueprint import load_blueprint
from edgeq.cli import main
from edgeq.files import sha256_of
from edgeq.pipeline import Event, RunResult, TimedTarget, run
from edgeq.pipeline.events import PhaseJudged
from edgeq.pipeline.phases import Phase
from edgeq.search.latencies import ThisMachine
from edgeq.store import Store

pytestmark = [pytest.mark.convert, pytest.mark.slow]

BLUEPRINT = """
schema_version = 1
name = "{name}"
prefer = ["size"]
[model]
source = "{folder}/{name}.tflite"
[data]
calibration = "{folder}/calibration.npz"
evaluation = "{folder}/evaluation.npz"
[variants]
schemes = ["int8"]
io = "float32"
[techniques]
effort = "quick"
{more}
[require]
{require}
"""


@pytest.fixture(scope="module")
def planted(made_by: Callable[[str], Path]) -> Path:
    return made_by("make_planted.py")


def written(workspace: Path, planted: Path, name: str, require: str, more: str = "") -> Path:
    path = workspace / "blueprint.toml"
    path.write_text(BLUEPRINT.format(name=name, folder=planted, require=require, more=more))
    return path


def result_of(path: Path, *, events: list[Event] | None = None, explore: bool = False) -> RunResult:
    with Store.open(path.parent) as store:
        return run(
            path,
            workspace=path.parent,
            targets=[TimedTarget(timing=ThisMachine(rounds=2))],
            explore=explore,
            store=store,
            on_event=(events if events is not None else []).append,
        )


def left_out(result: RunResult) -> dict[Phase, str]:
    return {each.phase: each.reason for each in result.skipped}


def test_a_model_that_plain_quantization_suits_stops_there(tmp_path: Path, planted: Path) -> None:
    path = written(tmp_path, planted, "even", "accuracy_min = 0.5")
    events: list[Event] = []
    result = result_of(path, events=events)
    assert result.chosen is not None
    assert result.chosen.variant.name == "int8-plain"
    assert "int8-plain holds its only gate" in result.verdict
    assert left_out(result)[Phase.CALIBRATION] == "int8-plain meets every limit"
    judged = [event for event in events if isinstance(event, PhaseJudged)]
    assert [(event.phase, event.chosen, event.proven) for event in judged] == [
        (Phase.PLAIN, "int8-plain", True)
    ]


def test_a_run_goes_on_to_mixed_precision_and_repeats_nothing(tmp_path: Path, planted: Path) -> None:
    path = written(tmp_path, planted, "outlier", "output_sqnr_db_min = 30.0")
    first = result_of(path)
    assert first.chosen is not None
    assert first.chosen.variant.name.startswith("mixed-")
    assert {each.name for each in first.built} >= {"float32", "int8-plain", "int8"}
    assert first.done > 4
    again = result_of(path)
    assert again.done == 0
    assert again.chosen is not None
    assert again.chosen.variant.sha256 == first.chosen.variant.sha256
    with Store.open(tmp_path) as store:
        bodies = [record.body for record in store.runs("run")]
    assert [body["chosen"] for body in bodies] == [first.chosen.variant.name] * 2
    assert bodies[0]["lineage"]["chosen_by"]["blueprint"]["sha256"] == load_blueprint(path).digest


def test_what_is_missed_is_said_with_the_technique_to_try(
    tmp_path: Path, planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, planted, "even", 'size_max = "1 KiB"', 'allow = ["calibration"]')
    status = main(["--workspace", str(tmp_path), "run", str(path), "--json"])
    shown = capsys.readouterr()
    assert status == 3
    assert "error[EQ700]" in shown.err
    assert "no candidate meets every limit; the nearest is int8: size_max 1 KiB, got" in shown.err
    assert "pruning of channels may improve size_max, but was left out" in shown.err
    assert not (tmp_path / "even.tflite").exists()
    *events, report, error = [json.loads(line) for line in shown.out.splitlines()]
    assert {event["schema"] for event in events} == {"edgeq.run.event/1"}
    assert [event["event"] for event in events if event["event"] != "skipped"] == [
        "phase", "candidate", "phase", "candidate", "judged", "phase", "candidate", "judged",
    ]  # fmt: skip
    assert (report["schema"], report["chosen"]) == ("edgeq.run/1", None)
    assert (error["schema"], error["error"]["code"]) == ("edgeq.error/1", "EQ700")


def test_the_chosen_file_is_written_and_another_file_is_not_replaced(
    tmp_path: Path, planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, planted, "even", "accuracy_min = 0.5")
    output = tmp_path / "even.tflite"
    output.write_bytes(b"mine")
    argv = ["--workspace", str(tmp_path), "run", str(path)]
    assert main(argv) == 2
    assert "expected a new file, or one that edgeq has made" in capsys.readouterr().err
    assert output.read_bytes() == b"mine"
    assert main([*argv, "--force"]) == 0
    first = sha256_of(output)
    assert main(argv) == 0
    assert sha256_of(output) == first
    shown = capsys.readouterr()
    assert "int8-plain holds its only gate" in shown.out
    assert "next: edgeq bundle" in shown.err

    # A source under the blueprint's name stays.
    (tmp_path / "own").mkdir()
    shutil.copy(planted / "even.tflite", tmp_path / "own" / "even.tflite")
    moved = tmp_path / "own" / "blueprint.toml"
    moved.write_text(path.read_text().replace(f"{planted}/even.tflite", "even.tflite"))
    assert main(["--workspace", str(tmp_path), "run", str(moved)]) == 0
    assert sha256_of(tmp_path / "own" / "even.tflite") == sha256_of(planted / "even.tflite")
    assert sha256_of(tmp_path / "own" / "even-edgeq.tflite") == first


@pytest.mark.parametrize(
    ("require", "slices", "words"),
    [
        ("accuracy_drop_max = 0.01", "", "even: require.accuracy_drop_max: this limit cannot be measured"),
        ("size_max = '1 MiB'", "accuracy_min = 0.9", "even: slices part.accuracy_min: this limit cannot be"),
    ],
)
def test_a_limit_that_the_data_cannot_measure_is_refused(
    tmp_path: Path, planted: Path, capsys: pytest.CaptureFixture[str], require: str, slices: str, words: str
) -> None:
    with np.load(planted / "evaluation.npz") as kept:
        np.savez(tmp_path / "unlabelled.npz", x=kept["x"], part=np.arange(len(kept["x"])) % 2 == 0)
    more = f'[[slices]]\nname = "part"\nwhere = "part"\n{slices}' if slices else ""
    path = written(tmp_path, planted, "even", require, more)
    path.write_text(path.read_text().replace(f"{planted}/evaluation.npz", f"{tmp_path}/unlabelled.npz"))
    assert main(["--workspace", str(tmp_path), "run", str(path)]) == 2
    assert words in capsys.readouterr().err


def test_slices_are_judged_with_limits_of_their_own(tmp_path: Path, planted: Path) -> None:
    with np.load(planted / "evaluation.npz") as kept:
        np.savez(tmp_path / "parts.npz", x=kept["x"], y=kept["y"], part=np.arange(len(kept["x"])) % 3)
    more = '[[slices]]\nname = "third"\nwhere = "part == 2"\naccuracy_min = 1.0'
    path = written(tmp_path, planted, "even", "class_drop_max = 1.0", more)
    path.write_text(path.read_text().replace(f"{planted}/evaluation.npz", f"{tmp_path}/parts.npz"))
    result = result_of(path)
    gates = {gate.key: gate for gate in result.selection.candidates[0].gates}
    assert set(gates) == {"class_drop_max", "accuracy_min (third)"}
    assert gates["accuracy_min (third)"].value is not None
    assert result.details is not None
    assert [part.name for part in result.details.slices] == ["third"]


def test_a_run_without_time_builds_nothing_but_the_float_model(tmp_path: Path, planted: Path) -> None:
    path = written(tmp_path, planted, "even", "accuracy_min = 0.5")
    text = path.read_text().replace("[techniques]", '[budget]\ntime = "1 ns"\n[techniques]')
    path.write_text(text)
    result = result_of(path)
    assert [each.name for each in result.built] == ["float32"]
    assert result.chosen is None
    assert left_out(result)[Phase.PLAIN] == "the budget of 1 ns is spent"


def test_a_killed_run_resumes_with_the_same_bytes(tmp_path: Path, planted: Path) -> None:
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    for folder in (calm, torn):
        folder.mkdir()
        written(folder, planted, "even", "output_sqnr_db_min = 0.1", 'allow = ["calibration"]')

    def command(folder: Path) -> list[str]:
        program = "import sys; from edgeq.cli import main; sys.exit(main())"
        more = ["--workspace", str(folder), "--explore", "--json", "--jobs", "2"]
        return [sys.executable, "-c", program, "run", str(folder / "blueprint.toml"), *more]

    def digests(output: str) -> dict[str, str]:
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
        return {each["name"]: each["sha256"] for each in report["candidates"]}

    undisturbed = subprocess.run(command(calm), check=True, capture_output=True, text=True)
    for seconds in (2.5, 4.0):
        with subprocess.Popen(command(torn), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
    done = subprocess.run(command(torn), check=True, capture_output=True, text=True)
    assert digests(done.stdout) == digests(undisturbed.stdout)
    assert set(digests(done.stdout)) == {"float32", "int8-plain", "int8"}
    assert sha256_of(torn / "even.tflite") == sha256_of(calm / "even.tflite")


def test_pruning_and_training_make_candidates_where_the_data_allows(
    tmp_path: Path, made_by: Callable[[str], Path]
) -> None:
    trained = made_by("make_tunable.py")
    path = tmp_path / "blueprint.toml"
    path.write_text(f"""
schema_version = 1
name = "trained"
[model]
source = "{trained}/sequential.keras"
[data]
calibration = "{trained}/unlabelled.npz"
evaluation = "{trained}/test.npz"
training = "{trained}/train.npz"
[variants]
schemes = ["int8"]
[techniques]
allow = ["pruning", "qat"]
effort = "quick"
epochs = 1
[require]
accuracy_min = 0.1
""")
    result = result_of(path, explore=True)
    assert [each.name for each in result.built] == [
        "float32", "int8-plain", "pruned-30-int8", "pruned-50-int8", "qat-int8",
    ]  # fmt: skip
    sizes = {each.name: each.variant.size_bytes for each in result.built if each.variant is not None}
    assert sizes["pruned-50-int8"] < sizes["pruned-30-int8"]
    assert result_of(path, explore=True).done == 0
