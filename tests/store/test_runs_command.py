"""`edgeq runs`: the list of records, and the error of a broken store."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.store import Store


def test_the_newest_come_first(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(workspace) as store:
        store.record_run("bundle", "kws", {"release": "r1"})
        store.record_run("deploy", "kws", {"release": "r1", "devices": []})
    assert main(["runs"]) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "when", "(UTC)", "kind", "subject"]
    assert re.fullmatch(r"2    \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d  deploy  kws", first)
    assert second.startswith("1 ")
    assert main(["runs", "--kind", "bundle", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgeq.runs/1"
    assert [(run["kind"], run["body"]) for run in document["runs"]] == [("bundle", {"release": "r1"})]
    assert main(["runs", "--limit", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 1


def test_an_empty_store_is_not_an_error(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "no runs recorded yet" in output.err


@pytest.mark.parametrize("command", [["runs"], ["monitor"], ["report"]], ids=["runs", "monitor", "report"])
def test_a_broken_store_is_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = workspace / ".edgeq" / "store.db"
    path.parent.mkdir()
    path.write_bytes(b"certainly no database " * 300)
    assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("store.db: not a database")
    assert lines[0].startswith("error[EQ610]: ")
    assert lines[1].startswith("hint: restore store.db from a backup, or move it away")
