"""Output of the command line: which stream, which format, and progress."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import pytest

from edgeq.cli.device_results import failure_line
from edgeq.cli.root import COMMANDS, root
from edgeq.cli.ui import App, Ui, command
from edgeq.errors import DeviceError


def test_diagnostics_are_on_stderr_and_results_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui()
    ui.say("note")
    ui.line("data")
    ui.table(["name", "size"], [["int8", "1"], ["float16", "22"]])
    out, err = capsys.readouterr()
    assert err == "note\n"
    assert out == "data\nname     size\nint8     1\nfloat16  22\n"


def test_json_is_one_document_and_silences_tables(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui(as_json=True)
    ui.line("data")
    ui.table(["a"], [["b"]])
    ui.emit("edgeq.test/1", {"sqnr_db": math.inf, "values": [math.nan, 1.5]})
    out, _ = capsys.readouterr()
    assert json.loads(out) == {"schema": "edgeq.test/1", "sqnr_db": None, "values": [None, 1.5]}


@pytest.mark.parametrize(
    ("before", "argv", "verbosity"), [(0, [], 0), (0, ["-v"], 1), (1, [], 1), (1, ["-v"], 2), (0, ["-vv"], 2)]
)
def test_verbose_adds_up_before_and_after_the_command(
    before: int, argv: list[str], verbosity: int, tmp_path: Path
) -> None:
    @command("probe", examples=["edgeq probe"])
    def probe(app: App) -> int:
        return app.ui.verbosity

    app = App(workspace=tmp_path, ui=Ui(verbosity=before))
    assert probe.main(argv, prog_name="edgeq", obj=app, standalone_mode=False) == verbosity


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui(quiet=True)
    ui.say("note")
    ui.detail("detail")
    ui.remarks(notes=["chosen"], warnings=["careful"])
    ui.error("EQ401", "pi: off")
    assert capsys.readouterr().err == "warning: careful\nerror[EQ401]: pi: off\n"


def test_notes_and_warnings_are_two_levels(capsys: pytest.CaptureFixture[str]) -> None:
    Ui().remarks(notes=["min/max ranges: 30.1 dB"], warnings=["only one sample"])
    assert capsys.readouterr().err == "note: min/max ranges: 30.1 dB\nwarning: only one sample\n"


def test_a_terminal_is_asked_and_a_script_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ui().confirm("apply?", yes=False), "there is no terminal"
    monkeypatch.setattr(Ui, "interactive", True)
    monkeypatch.setattr("click.confirm", lambda question, **more: False)
    assert not Ui().confirm("apply?", yes=False)
    assert Ui().confirm("apply?", yes=True)


def test_a_failed_device_is_named_once() -> None:
    assert failure_line("pi", DeviceError("pi: kws", "too old")) == "pi: failed, kws: too old"
    assert failure_line("pi", DeviceError("kws", "too old")) == "pi: failed, kws: too old"


def groups() -> list[str]:
    context = click.Context(root)
    return [name for name in COMMANDS if isinstance(root.get_command(context, name), click.Group)]


@pytest.mark.parametrize("columns", ["20", "80", "300"])
@pytest.mark.parametrize("group", groups())
def test_the_help_of_a_group_cuts_no_line(monkeypatch: pytest.MonkeyPatch, group: str, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    parent = click.Context(root, info_name="edgeq", **root.context_settings)
    command = root.get_command(parent, group)
    assert isinstance(command, click.Group)
    # Not from standard output, where whatever runs in this process may print. A line is wrapped where the
    # terminal ends; its words follow each other nevertheless.
    context = click.Context(command, info_name=group, parent=parent)
    shown = " ".join(command.get_help(context).partition("Commands:\n")[2].split())
    listed = {name: command.get_command(context, name) for name in command.list_commands(context)}
    assert listed
    for name, each in listed.items():
        assert each is not None
        assert f"{name} {each.get_short_help_str(limit=10_000)}" in shown
