"""Text of a hostile device reaches no terminal, page or log with control or format characters.

The device is a real one behind SSH. Its interpreter is a program that runs the agent and adds hostile text to
the strings of every answer.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq import errors
from edgeq.cli import main
from edgeq.cli.ui import Ui
from edgeq.crash import unexpected
from edgeq.report import Level, ReportView, Table, VerdictLine
from edgeq.report.page import render
from edgeq.store import Store
from edgeq.testing.loopback import loopback_device
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.text import json_line, one_line, several_lines
from tests.fleet.servers import enrol_at

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\r\nforged: ok\u2028\u200b"
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}

# Adds the hostile text to all strings but those that name what the answer is about: with another model or
# digest the answer would be refused as a whole.
INTERPRETER = """#!{python}
import json, os, re, subprocess, sys
HOSTILE = {hostile!r}
KEPT = {{"event", "schema", "model", "release", "current", "previous", "digest", "sha256", "device_id",
        "boot", "experiment", "code", "module", "version"}}
def hostile(value, key=""):
    if isinstance(value, dict):
        return {{name: hostile(item, name) for name, item in value.items()}}
    if isinstance(value, list):
        return [hostile(item, key) for item in value]
    return value + HOSTILE if isinstance(value, str) and key not in KEPT else value
argv = [{python!r}] + sys.argv[1:]
mode = open({mode!r}).read()
if "-c" in argv[:4] or mode == "honest":
    os.execv(argv[0], argv)
if mode == "stderr":
    os.write(2, ("x" + HOSTILE).encode("utf-8", "replace"))
    sys.exit(1)
if mode == "noise":
    os.write(1, HOSTILE.encode("utf-8", "replace") + b"\\n")
done = subprocess.run(argv, stdin=0, stdout=subprocess.PIPE)
for line in done.stdout.decode().splitlines():
    mark, brace, body = line.partition("{{")
    if not brace:
        print(line)
        continue
    message = json.loads(brace + body)
    if mode == "error" and message["event"] in ("result", "error"):
        fields = ("code", "subject", "problem", "expected", "got", "hint")
        message = {{"event": "error", "error": dict.fromkeys(fields, HOSTILE)}}
    elif mode == "window" and message["event"] == "window":
        message["window"]["errors"] = {{HOSTILE: 1}}
        message["window"]["inputs"] = [{{"name": HOSTILE, "channels": []}}]
    elif mode == "texts" and message["event"] != "hello":
        message = hostile(message)
        if "errors" in message.get("result", {{}}):
            message["result"]["errors"] = {{HOSTILE: 1}}
    print(mark + json.dumps(message))
sys.exit(done.returncode)
"""


def unsafe(text: str) -> set[str]:
    """Return the control and format characters of a text, but for newlines, and forged lines."""
    characters = {each for each in text if each != "\n" and unicodedata.category(each) in UNSAFE}
    return characters | {line for line in text.splitlines() if line.startswith("forged")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a workspace with the hostile device `pi`, which serves `double`."""
    workspace = tmp_path_factory.mktemp("site")
    with loopback_device(tmp_path_factory.mktemp("device")) as running:
        enrol_at(running, workspace)
        write_tiny_bundle(workspace / "double.eqb")
        np.savez(workspace / "x.npz", x=np.zeros((6, 4), np.float32))
        at = ["--workspace", str(workspace)]
        assert main([*at, "deploy", str(workspace / "double.eqb"), "--to", "pi", "--yes"]) == 0
        assert main([*at, "infer", "double", "--on", "pi", "--data", str(workspace / "x.npz")]) == 0
        mode, python = workspace / "mode", workspace / "hostile-python"
        python.write_text(INTERPRETER.format(python=sys.executable, hostile=HOSTILE, mode=str(mode)))
        python.chmod(0o755)
        devices = workspace / "devices.toml"
        devices.write_text(devices.read_text("utf-8") + f"python = {str(python)!r}\n", encoding="utf-8")
        yield workspace


COMMANDS: list[list[str]] = [
    ["status", "pi"],
    ["infer", "double", "--on", "pi", "--data", "x.npz"],
    ["bench", "double", "--on", "pi", "--runs", "5", "--seconds", "0.01"],
    ["prune", "--on", "pi", "--dry-run"],
    ["doctor", "pi"],
    ["pin", "double", "--on", "pi"],
    ["unpin", "double", "--on", "pi"],
    ["keys", "list", "--on", "pi"],
    ["plan", "double.eqb", "--to", "pi"],
    ["deploy", "double.eqb", "--to", "pi", "--yes"],
    ["rollback", "double", "--on", "pi"],
    ["collect", "pi"],
    ["quarantine", "list"],
    ["logs", "pi"],
    ["audit", "list"],
    ["monitor"],
    ["report", "-o", "page.html"],
    ["runs"],
]


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["texts", "error", "stderr", "noise", "window"])
def test_no_command_prints_what_controls_a_terminal(
    site: Path, mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(site)
    (site / "mode").write_text(mode)
    shown = 0
    for command in COMMANDS:
        for more in ([], ["--json"]):
            status = main(["--workspace", str(site), *command, *more])
            printed = capsys.readouterr()
            assert status in (0, 1, 2, 3), (command, printed.err)
            assert not unsafe(printed.out + printed.err), command
            shown += "owned" in printed.out + printed.err
            if more and status == 0:
                json.loads(printed.out)
    # Noise before an answer is passed over, and of standard error only the last line is shown.
    assert shown > 3 or mode in ("noise", "stderr")
    for path in [site / "page.html", *site.glob("edgeq-crash*.log")]:
        # Plotly's own code contains some of these characters.
        page = path.read_text("utf-8").partition("plotly.js")[0] if path.exists() else ""
        assert "\x1b" not in page
        assert "\u202e" not in page
    assert not list(site.glob("edgeq-crash*.log"))


@given(st.text())
def test_one_line_is_one_line_without_control_characters(text: str) -> None:
    assert not unsafe("x" + one_line(text))
    assert "\n" not in one_line(text)
    assert not unsafe(several_lines(text).replace("\t", "").replace("forged", ""))


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_other_text_is_not_changed(text: str) -> None:
    assert one_line(text) == text


@given(
    st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
)
def test_json_stays_the_same_document(value: object) -> None:
    document = json_line(json.dumps(value, ensure_ascii=False))
    assert json.loads(document) == value
    assert not unsafe("x" + document)


def test_a_long_text_is_cut() -> None:
    assert one_line("x" * 1000, longest=10) == "xxxxxxx..."


def test_every_way_out_of_the_user_interface_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    text = f"x{HOSTILE}"
    ui = Ui(verbosity=1)
    for write in (ui.say, ui.detail, ui.warn, ui.next, ui.line, lambda cell: ui.table([cell], [[cell]])):
        write(text)
    ui.text("x\ny\x1b")
    with ui.progress(text, 10) as advance:
        advance(10)
    Ui(as_json=True).emit("edgeq.test/1", {text: [text, "\ud800"]})
    printed = capsys.readouterr()
    assert not unsafe(printed.out.replace("\t", "") + printed.err)
    assert printed.out.count("owned") == 5
    assert json.loads(printed.out.splitlines()[-1])[text] == [text, "\ud800"]


def test_an_error_and_its_log_are_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = errors.DeviceError(f"pi{HOSTILE}", HOSTILE, expected=HOSTILE, got=HOSTILE)
    assert not unsafe(error.message)
    assert not unsafe(str(error))
    assert not unsafe(unexpected(ValueError(HOSTILE), device="pi").message)
    (log,) = tmp_path.glob("*.log")
    assert "\x1b" not in log.read_text("utf-8")
    assert "\u202e" not in log.read_text("utf-8")


def test_a_page_is_cleaned() -> None:
    table = Table(id="field", title=HOSTILE, headings=(HOSTILE,), rows=((HOSTILE,),))
    view = ReportView(
        title=HOSTILE, created="now", verdicts=(VerdictLine(level=Level.BAD, text=HOSTILE),), variants=None,
        pareto=None, devices=table, latency=None, field=table, streams=None, drift=(), provenance=table,
    )  # fmt: skip
    page = render(view)
    assert "owned" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "\x9b" not in page


def test_a_quarantined_record_is_shown_safely(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeq.store import RefusedRecord

    with Store.open(workspace) as store:
        store.ingest("pi", [], refused=[RefusedRecord(reason=HOSTILE, body={HOSTILE: HOSTILE})])
    for command in (["list"], ["list", "--json"], ["show", "1"], ["show", "1", "--json"], ["retry", "1"]):
        assert main(["quarantine", *command]) == 0
        printed = capsys.readouterr()
        assert not unsafe(printed.out + printed.err)
