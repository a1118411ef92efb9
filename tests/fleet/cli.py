"""The command line as tests use it: one call, its exit status, and what it wrote where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeq.cli import main


class Cli:
    """Runs `edgeq` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.err = ""

    def text(self, *argv: str, status: int = 0) -> str:
        self.capsys.readouterr()
        got = main(list(argv))
        out, self.err = self.capsys.readouterr()
        assert got == status, (got, out, self.err)
        assert "Traceback" not in self.err
        return out

    def json(self, *argv: str, status: int = 0) -> dict[str, Any]:
        lines = self.text(*argv, "--json", status=status).splitlines()
        assert len(lines) == 1, lines
        document: dict[str, Any] = json.loads(lines[0])
        assert document["schema"].startswith("edgeq.")
        return document

    def refused(self, *argv: str, status: int, code: str) -> str:
        """Return the one line of a refusal."""
        self.text(*argv, status=status)
        assert self.err.count("error[") == 1, self.err
        lines = self.err.splitlines()[-2:]
        assert lines[0].startswith(f"error[{code}]: "), self.err
        assert lines[1].startswith("hint: ")
        return lines[0]
