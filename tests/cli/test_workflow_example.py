"""The example of a GitHub workflow: its commands are real, and it shows the summary of any verdict."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_suggested_commands import parsed


@pytest.fixture
def steps(project_root: Path) -> list[dict[str, Any]]:
    path = project_root / "examples" / "github-actions" / "edgeq-run.yml"
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    listed: list[dict[str, Any]] = job["steps"]
    return listed


def test_the_commands_are_those_of_edgeq(steps: list[dict[str, Any]]) -> None:
    commands = [shlex.split(step["run"])[1:] for step in steps if step.get("run", "").startswith("edgeq ")]
    assert len(commands) == 1
    for words in commands:
        parsed(words)


def test_what_the_run_writes_is_shown_also_when_it_fails(steps: list[dict[str, Any]]) -> None:
    (run,) = [step["run"] for step in steps if step.get("run", "").startswith("edgeq run")]
    words = shlex.split(run)
    summary, page = words[words.index("--markdown") + 1], words[words.index("--html") + 1]
    (shown,) = [step for step in steps if "GITHUB_STEP_SUMMARY" in step.get("run", "")]
    (kept,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert shown["run"] == f'cat {summary} >> "$GITHUB_STEP_SUMMARY"'
    assert kept["with"]["path"] == page
    for step, file in ((shown, summary), (kept, page)):
        assert "!cancelled()" in step["if"]
        assert file in step["if"]
