"""JSON documents: the table in docs/json-output.md names every key of the real documents, and no other.

Every document that a command writes anywhere in the tests is compared with the table, by a fixture in
tests/conftest.py. The tests here run some commands that need no device, and prove that the comparison works.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.cli import main
from tests.boundaries.json_table import Keys, documented, parse


def test_every_row_is_read(project_root: Path) -> None:
    commands = (project_root / "docs" / "json-output.md").read_text(encoding="utf-8").partition("## Files")[0]
    assert len(documented()) == commands.count("| `edgeq.")
    assert all(keys.always for keys in documented().values())


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["doctor", "--local"],
        ["devices", "list"],
        ["keys", "new", "release"],
        ["keys", "list"],
        ["completion", "bash"],
        ["status"],
        ["agent", "build", "-o", "agent.pyz"],
        ["check", "none.toml"],
    ],
    ids=" ".join,
)
def test_the_document_has_the_keys_of_the_table(
    workspace: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    main([*command, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert documented()[document["schema"]].difference(document) == []


def test_a_wrong_row_is_seen() -> None:
    (keys,) = parse("| `edgeq.convert/1` | `edgeq convert` | `path`, `ops`, (`error`) | |\n").values()
    assert keys == Keys(always=frozenset({"path", "ops"}), sometimes=frozenset({"error"}))
    assert keys.difference({"schema", "path", "op_report"}) == [
        "`op_report` is not documented",
        "`ops` is missing",
    ]
