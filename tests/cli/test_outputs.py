"""The check of a command's outputs before its work: each command, each output option, each obstacle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.files import obstacle, write_atomic

BLUEPRINT = """
schema_version = 1
name = "b"
[model]
source = "m.tflite"
[data]
calibration = "c.npz"
evaluation = "e.npz"
[variants]
schemes = ["int8"]
"""
# None of the files is what it is called: a command that reads one before it checks its output says so.
INPUTS = ("m.tflite", "m.keras", "c.npz", "e.npz", "h.npz", "r.json")
COMMANDS: dict[str, tuple[str, str, str]] = {
    "convert": ("convert m.tflite --scheme int8 --calibration c.npz", "-o", "c.npz"),
    "convert source": ("convert m.tflite --scheme int8 --calibration c.npz", "-o", "m.tflite"),
    "convert recipe": (
        "convert m.tflite -o o.tflite --scheme int8 --calibration c.npz",
        "--save-recipe",
        "c.npz",
    ),
    "convert histograms": ("convert m.tflite --scheme int8 --histograms h.npz", "-o", "h.npz"),
    "convert prune": (
        "convert m.keras --scheme float32 --prune channels:0.5 --training c.npz",
        "-o",
        "c.npz",
    ),
    "tune": ("tune m.keras --qat --training c.npz", "-o", "m.keras"),
    "calibrate": ("calibrate m.tflite --data c.npz", "-o", "c.npz"),
    "calibrate against": ("calibrate m.tflite --data c.npz --against h.npz", "-o", "h.npz"),
    "calibrate merge": ("calibrate --merge h.npz c.npz", "-o", "h.npz"),
    "sensitivity": ("sensitivity m.tflite --calibration c.npz --evaluation e.npz", "--html", "e.npz"),
    "search": ("search b.toml", "-o", "m.tflite"),
    "search page": ("search b.toml -o o.tflite", "--html", "b.toml"),
    "edgetpu": ("edgetpu m.tflite", "-o", "m.tflite"),
    "reproduce": ("reproduce m.tflite", "-o", "m.tflite"),
    "bundle": ("bundle m.tflite --name m --data e.npz", "-o", "e.npz"),
    "report": ("report", "-o", ""),
}


@pytest.fixture
def files(workspace: Path) -> Path:
    """A workspace with the inputs of every command."""
    for name in INPUTS:
        (workspace / name).write_bytes(b"something else")
    (workspace / "b.toml").write_text(BLUEPRINT)
    return workspace


def run(words: str, option: str, path: Path | str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main([*words.split(), option, str(path)])
    out, err = capsys.readouterr()
    assert out == ""
    return status, err


def suffixed(command: str, name: str) -> str:
    return f"{name}{'.keras' if command == 'tune' else '.npz' if command.startswith('calibrate') else '.x'}"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_refused_first(
    command: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, option, _ = COMMANDS[command]
    folder = files / suffixed(command, "folder")
    folder.mkdir()
    if command not in {"sensitivity", "search page", "report"}:  # click refuses a folder for a page itself
        status, err = run(words, option, folder, capsys)
        assert (status, err.splitlines()[0]) == (
            1,
            f"error[EQ311]: {folder}: cannot be written: it is a folder",
        )
    for path in (
        Path("/proc") / suffixed(command, "no"),
        files / "m.tflite" / suffixed(command, "below-a-file"),
    ):
        status, err = run(words, option, path, capsys)
        assert (status, err.startswith(f"error[EQ311]: {path}: cannot be written: ")) == (1, True), err
        assert f"hint: give another {option}" in err
    assert (files / "m.tflite").read_bytes() == b"something else"


@pytest.mark.parametrize("command", [name for name, (_, _, given) in COMMANDS.items() if given])
def test_an_output_never_replaces_an_input(
    command: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, option, given = COMMANDS[command]
    before = (files / given).read_bytes()
    for path in (given, files / "." / given):
        status, err = run(words, option, path, capsys)
        assert (status, err.startswith("error[EQ101]: ")) == (2, True), err
        assert "the output would replace the input" in err
    assert (files / given).read_bytes() == before


@pytest.mark.slow
@pytest.mark.convert
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in {"report", "search page"}])
def test_a_missing_folder_is_fine_and_a_failure_does_not_create_it(
    command: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, option, _ = COMMANDS[command]
    status, err = run(words, option, files / "new" / "deep" / suffixed(command, "o"), capsys)
    assert status in (1, 2)
    assert "EQ311" not in err
    assert not (files / "new").exists()


def test_two_outputs_in_one_file_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, option in (
        ("convert m.tflite -o o.tflite --scheme int8 --calibration c.npz", "--save-recipe"),
        ("search b.toml -o o.tflite", "--html"),
    ):
        status, err = run(words, option, "o.tflite", capsys)
        assert (status, f"o.tflite: is both -o and {option}" in err) == (2, True), err


def test_an_obstacle_is_what_keeps_a_file_from_being_written(tmp_path: Path) -> None:
    for name in ("a", "new/b", "x" * 250, "é" * 130):
        path = tmp_path / name
        try:
            write_atomic(path, b"")
            problem = None
            path.unlink()
        except OSError as error:
            problem = str(error)
        if path.parent.exists():
            assert (obstacle(path) is None) == (problem is None), name
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new"]
    if os.geteuid():  # root may write everywhere
        tmp_path.chmod(0o500)
        assert "Permission denied" in str(obstacle(tmp_path / "c"))
