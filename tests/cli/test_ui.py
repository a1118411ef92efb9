"""Output of the command line: which stream, which format, and progress."""

from __future__ import annotations

import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.cli.device_results import failure_line
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
    ui.warn("careful")
    assert capsys.readouterr().err == "warning: careful\n"


def test_a_quick_step_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Ui().progress("calibrating", 2) as advance:
        advance(1)
        advance(1)
    assert capsys.readouterr().err == ""


def test_progress_in_a_pipe_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.cli.ui.PROGRESS_AFTER_S", 0.0)
    with Ui().progress("calibrating", 100) as advance:
        for _ in range(100):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "calibrating: 10 %"
    assert lines[-1] == "calibrating: 100 %"
    assert len(lines) == 10
    assert not any("\x1b" in line for line in lines)


def test_progress_on_a_terminal_is_a_bar() -> None:
    script = (
        "from edgeq.cli.ui import Ui\n"
        "import time\n"
        "with Ui().progress('calibrating', 4) as advance:\n"
        "    for _ in range(4):\n"
        "        time.sleep(0.2)\n"
        "        advance(1)\n"
    )
    controller, terminal = pty.openpty()
    environment = dict(os.environ, TERM="xterm", COLUMNS="80")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=terminal, stdout=subprocess.DEVNULL, env=environment
    )
    os.close(terminal)
    seen = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:  # the terminal's other end is closed: the process is gone
            break
        if not piece:
            break
        seen += piece
    os.close(controller)
    assert process.wait(timeout=30) == 0
    assert b"calibrating" in seen
    assert b"\x1b[" in seen


def test_a_terminal_is_asked_and_a_script_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ui().confirm("apply?", yes=False), "there is no terminal"
    monkeypatch.setattr(Ui, "interactive", True)
    monkeypatch.setattr("click.confirm", lambda question, **more: False)
    assert not Ui().confirm("apply?", yes=False)
    assert Ui().confirm("apply?", yes=True)


def test_a_failed_device_is_named_once() -> None:
    assert failure_line("pi", DeviceError("pi: kws", "too old")) == "pi: failed, kws: too old"
    assert failure_line("pi", DeviceError("kws", "too old")) == "pi: failed, kws: too old"


@pytest.mark.parametrize("group", ["devices", "keys", "rollout", "ab", "agent", "bundle"])
def test_the_help_of_a_group_cuts_no_line(capsys: pytest.CaptureFixture[str], group: str) -> None:
    assert main([group, "-h"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]
