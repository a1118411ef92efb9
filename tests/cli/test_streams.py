"""Standard streams that are closed, full or without a reader: the exit status, and no crash log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from edgeq.cli import main
from edgeq.cli.root import COMMANDS
from edgeq.cli.ui import Ui
from edgeq.files import write_atomic
from tests.cli.test_boundary import EDGEQ, every_command
from tests.cli.test_check import written

# Commands that end quickly, in an empty workspace with a blueprint.
QUICK = [
    ["runs"],
    ["runs", "--json"],
    ["check", "blueprint.toml"],
    ["check", "blueprint.toml", "--json"],
    ["check", "none.toml", "--json"],
    ["devices"],
    ["devices", "list"],
    ["devices", "list", "--json"],
    ["status", "none", "--json"],
    ["rollout", "list"],
    ["ab", "list", "--json"],
    ["keys", "list"],
    ["quarantine", "list", "--json"],
    ["completion", "bash"],
    ["convrt", "--json"],
    ["--version"],
    [],
]


@contextmanager
def no_reader() -> Iterator[TextIO]:
    """Yield the writing end of a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        yield stream


@pytest.fixture
def filled(workspace: Path) -> Path:
    written(workspace)
    return workspace


def statuses(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, int, str]:
    """Run a command with standard output captured, then without a reader: both statuses, and stderr."""
    usual = main(argv)
    wrote = capsys.readouterr().out != ""
    with no_reader() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        status = main(argv)
    expected = usual if usual or not wrote else 141
    return status, expected, capsys.readouterr().err


def test_help_without_a_reader_is_status_141(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in every_command():
        status, expected, err = statuses([*path, "--help"], monkeypatch, capsys)
        assert (status, expected, err) == (141, 141, ""), path
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("argv", QUICK, ids=lambda argv: " ".join(argv) or "nothing")
def test_results_without_a_reader_are_status_141_and_errors_keep_theirs(
    argv: list[str], filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, expected, err = statuses(argv, monkeypatch, capsys)
    assert status == expected
    assert "a bug" not in err
    assert list(filled.glob("edgeq-crash-*")) == []


@pytest.mark.parametrize("argv", [*QUICK[:4], ["devices", "-h"], ["convert", "-h"]], ids=" ".join)
def test_a_full_disk_behind_standard_output_is_an_error(
    argv: list[str], filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(argv)
    wrote = capsys.readouterr().out != ""
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        status = main(argv)
    err = capsys.readouterr().err
    refused = "error[EQ620]: standard output: cannot be written: No space left on device\n"
    assert (status == 1 and refused in err) if wrote else (status == 0 and refused not in err)
    assert list(filled.glob("edgeq-crash-*")) == []


def test_progress_that_no_one_reads_does_not_end_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_reader() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        ui = Ui()
        for _ in range(3):
            ui.say("pi: sent")
            ui.warn("pi: slow")


@pytest.mark.parametrize(
    ("redirections", "status"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&-", 0),
        ("<&- >&- 2>&-", 0),
        ("> /dev/full", 1),
        ("2> /dev/full", 0),
        ("| head -c 0", 141),
        ("2>&1 | head -c 0", 141),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.first_is_quick
def test_a_process_with_closed_streams(redirections: str, status: int, unbuffered: str, filled: Path) -> None:
    # The reader of the pipe is gone before edgeq writes: it takes longer to start than `head`.
    script = f"set -o pipefail; {EDGEQ} check blueprint.toml -v {redirections}"
    environment = dict(os.environ, PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert list(filled.glob("edgeq-crash-*")) == []


def test_a_group_without_a_command_prints_its_help(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import click

    from tests.cli.test_boundary import leaf

    groups = [path for path in every_command() if isinstance(leaf(path), click.Group)]
    assert {"devices", "rollout", "ab", "keys", "agent", "quarantine", "bundle"} <= {
        path[0] for path in groups
    }
    for path in [(), *groups]:
        for more in [(), ("-q",), ("--workspace", "elsewhere")]:
            if more and path == ("bundle",):
                continue  # its options are those of making a bundle
            assert main([*path, *more]) == 0
            out, err = capsys.readouterr()
            assert out.startswith(f"Usage: {' '.join(('edgeq', *path))} "), path
            assert err == ""


def test_a_misspelt_command_of_a_group_is_suggested(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "resum"]) == 2
    assert capsys.readouterr().err.startswith(
        "error[EQ101]: edgeq rollout: No such command 'resum'. Did you mean `resume`?\nhint: "
    )


def test_every_command_takes_the_global_options_after_its_name(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in every_command():
        assert main([*path, "-q", "-v", "--debug", "--workspace", "elsewhere", "--help"]) == 0, path
    assert set(COMMANDS) == {path[0] for path in every_command()}


@pytest.mark.parametrize(
    "argv",
    [
        ["--workspace", "other", "devices", "list"],
        ["devices", "--workspace", "other", "list"],
        ["devices", "list", "--workspace", "other"],
        ["--workspace", "none", "devices", "list", "--workspace=other"],
    ],
)
def test_the_workspace_is_an_option_before_and_after_the_command(
    argv: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "other").mkdir()
    (workspace / "other" / "devices.toml").write_text('[devices.pi]\nhost = "a"\n')
    main(argv)
    _, err = capsys.readouterr()
    assert str(Path("other", "devices.toml")) in err, "the file without a host key is refused by name"


@pytest.mark.parametrize("argv", [["--debug", "check", "b.toml"], ["check", "b.toml", "--debug"]])
def test_debug_shows_the_traceback_of_an_error(
    argv: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_device_as_the_output_file_stays_a_device() -> None:
    controller, terminal = os.openpty()
    try:
        path = Path(os.ttyname(terminal))
        write_atomic(path, b"text")
        assert path.is_char_device()
        assert os.read(controller, 100) == b"text"
    finally:
        os.close(terminal)
        os.close(controller)
