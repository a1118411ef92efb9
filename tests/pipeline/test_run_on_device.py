"""A run that measures its candidates on a device and deploys the chosen one to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.errors import ExitStatus

pytestmark = [pytest.mark.convert]


def blueprint(folder: Path, data: Path) -> Path:
    path = folder / "even.toml"
    path.write_text(
        f'schema_version = 1\nname = "even"\n[model]\nsource = "{data}/even.tflite"\n'
        f'[data]\ncalibration = "{data}/calibration.npz"\nevaluation = "{data}/evaluation.npz"\n'
        '[variants]\nschemes = ["int8"]\nio = "float32"\n'
        '[require]\naccuracy_min = 0.5\nlatency_p95_max = "1 s"\n'
    )
    return path


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--deploy"], "--deploy: needs the devices"),
        (["--stages", "all"], "--stages: deploys nothing"),
        (["--soak", "1s"], "--soak: deploys nothing"),
        (["--device", "nowhere"], "nowhere"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    for name in ("even.tflite", "calibration.npz", "evaluation.npz"):
        (tmp_path / name).write_bytes(b"x")
    argv = ["--workspace", str(tmp_path), "run", str(blueprint(tmp_path, tmp_path)), *words]
    assert main(argv) == ExitStatus.USAGE
    assert problem in capsys.readouterr().err
    assert not (tmp_path / ".edgeq" / "runs").exists()


@pytest.mark.slow
@pytest.mark.sshd
def test_a_run_measures_and_deploys_to_a_device(
    tmp_path: Path, made_by: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def edgeq(*words: str) -> list[dict[str, object]]:
        status = main(["--workspace", str(tmp_path), *words, "--json"])
        shown = capsys.readouterr()
        assert status == 0, shown.err
        return [json.loads(line) for line in shown.out.splitlines()]

    path = blueprint(tmp_path, made_by("make_planted.py"))
    edgeq("devices", "emulate", "pi", "--detach")
    try:
        documents = edgeq("run", str(path), "--device", "pi", "--deploy", "--yes")
        *_, result, bundle, deploy = documents
        assert [each["schema"] for each in (result, bundle, deploy)] == [
            "edgeq.run/1", "edgeq.bundle/1", "edgeq.deploy/1",
        ]  # fmt: skip
        assert result["chosen"] == bundle["variant"] == "int8-plain"
        assert "on pi" in str(result["verdict"])
        assert "not measured yet" not in str(result["verdict"])
        status = json.dumps(edgeq("status", "pi")[0]["devices"])
        assert str(bundle["release"]) in status
    finally:
        edgeq("devices", "stop", "pi")
