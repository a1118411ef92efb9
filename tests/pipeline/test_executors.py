"""Candidates built on a real dask cluster are those of one machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.errors import ExitStatus

pytestmark = [pytest.mark.convert, pytest.mark.filterwarnings("default")]


def test_an_address_without_a_scheduler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("m.tflite", "c.npz", "e.npz"):
        (tmp_path / name).write_bytes(b"x")
    path = tmp_path / "blueprint.toml"
    path.write_text(
        'schema_version = 1\nname = "b"\n[model]\nsource = "m.tflite"\n'
        '[data]\ncalibration = "c.npz"\nevaluation = "e.npz"\n'
    )
    argv = ["--workspace", str(tmp_path), "run", str(path), "--scheduler", "nowhere://1"]
    assert main(argv) == ExitStatus.USAGE
    assert "expected the address of a running dask scheduler, tcp://HOST:PORT" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes(
    tmp_path: Path, made_by: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from distributed import LocalCluster

    data = made_by("make_planted.py")

    def digests(folder: Path, *more: str) -> dict[str, str]:
        folder.mkdir()
        path = folder / "blueprint.toml"
        path.write_text(
            f'schema_version = 1\nname = "even"\n[model]\nsource = "{data}/even.tflite"\n'
            f'[data]\ncalibration = "{data}/calibration.npz"\nevaluation = "{data}/evaluation.npz"\n'
            '[variants]\nschemes = ["float16", "int8"]\n[techniques]\nallow = []\n'
        )
        argv = ["--workspace", str(folder), "run", str(path), "--explore", "--json", *more]
        assert main(argv) == 0
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        return {each["name"]: each["sha256"] for each in report["candidates"]}

    here = digests(tmp_path / "here")
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        there = digests(tmp_path / "there", "--scheduler", cluster.scheduler_address)
    assert set(here) == {"float32", "float16", "int8-plain"}
    assert there == here
