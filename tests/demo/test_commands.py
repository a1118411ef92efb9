"""`edgeq select` and `edgeq bundle` on the demo's models: exit statuses, documents and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgeq.cli import main

from .conftest import DemoRun

pytestmark = [pytest.mark.convert, pytest.mark.slow]


@pytest.fixture
def folder(demo: DemoRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the demo's files that is the current folder."""
    copy = tmp_path / "folder"
    shutil.copytree(
        demo.folder, copy, ignore=shutil.ignore_patterns("device", "devices.toml", ".edgeq", "*.eqb")
    )
    monkeypatch.chdir(copy)
    return copy


SELECT = ["select", "blueprint.toml", "--reference", "float32.tflite"]


def test_select_chooses_the_smallest_within_the_limits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SELECT, "float16.tflite", "int8.tflite", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgeq.select/1"
    assert document["chosen"] == "int8"
    by_name = {candidate["name"]: candidate for candidate in document["candidates"]}
    assert by_name["int8"]["admissible"]
    gates = {gate["name"]: gate["holds"] for gate in by_name["int8"]["gates"]}
    assert gates["size_bytes_max"] is True
    assert gates["latency_p95_ns_max"] is None


def test_select_without_an_admissible_variant_exits_with_3(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blueprint = folder / "blueprint.toml"
    blueprint.write_text(blueprint.read_text().replace('"40 KiB"', '"1 KiB"'))
    assert main([*SELECT, "float16.tflite", "int8.tflite"]) == 3
    out, err = capsys.readouterr()
    assert "FAILS size_max 1 KiB, got " in out
    assert "; not measured yet: latency_p95_max" in out
    assert "error[EQ700]" in err
    assert "size_max 1 KiB, got " in err


def test_select_requires_different_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SELECT, "int8.tflite", "./int8.tflite"]) == 2
    assert "different names" in capsys.readouterr().err


BUNDLE = ["bundle", "int8.tflite", "-o", "out.eqb"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "--name"),
        (["--name", "digits"], 2, "--data"),
        (["--name", "../up", "--data", "evaluation.npz"], 1, "model"),
        (["--name", "digits", "--data", "none.npz"], 1, "EQ201"),
        (["--name", "digits", "--data", "evaluation.npz", "--label", "only"], 1, "10, one a class"),
        (["--blueprint", "blueprint.toml", "--golden", "0"], 2, "golden"),
    ],
)
def test_bundle_refuses_bad_input_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    (folder / "out.eqb").write_bytes(b"what was there before")
    assert main([*BUNDLE, *arguments]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "hint:" in err or status == 1
    assert (folder / "out.eqb").read_bytes() == b"what was there before"


def test_a_damaged_model_cannot_be_bundled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / "int8.tflite").read_bytes()
    (folder / "int8.tflite").write_bytes(whole[: len(whole) // 2])
    assert main([*BUNDLE, "--blueprint", "blueprint.toml"]) == 1
    assert "error[EQ303]" in capsys.readouterr().err
    assert not (folder / "out.eqb").exists()


def test_a_bundle_for_one_kind_carries_that_kinds_limits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blueprint = folder / "blueprint.toml"
    blueprint.write_text(blueprint.read_text() + '\n[device.coral]\nlatency_p95_max = "3 ms"\n')
    assert main([*BUNDLE, "--blueprint", "blueprint.toml", "--kind", "coral", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    from edgeq.bundle import read_bundle

    bundle = read_bundle(folder / "out.eqb")
    assert bundle.release == document["release"]
    assert bundle.parsed.requires.kinds == ("coral",)
    assert bundle.parsed.limits.latency_p95_ns == 3_000_000
    assert bundle.parsed.lineage["model"]
