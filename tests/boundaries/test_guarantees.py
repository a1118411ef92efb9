"""Guard on the guarantees of docs/deploy.md and docs/experiments.md: each names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def missing(page: str, root: Path) -> list[str]:
    """Return the tests that a page names and that do not exist."""
    found = []
    for path, name in NAMED.findall(page):
        file = root / path
        tree = ast.parse(file.read_text("utf-8")) if file.exists() else ast.Module(body=[], type_ignores=[])
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            found.append(f"{path}::{name}")
    return found


@pytest.mark.parametrize(
    ("name", "heading", "count"),
    [("deploy", "What the device guarantees", 15), ("experiments", "Guarantees and their tests", 12)],
)
def test_every_guarantee_names_a_test_that_exists(
    project_root: Path, name: str, heading: str, count: int
) -> None:
    page = (project_root / "docs" / f"{name}.md").read_text("utf-8")
    assert missing(page, project_root) == []
    section = page.partition(f"## {heading}")[2].partition("\n## ")[0]
    rows = [
        line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| guarantee")
    ]
    assert len(rows) >= count
    assert [row for row in rows if not NAMED.search(row)] == []


PLACEHOLDERS = {"test_NAME"}


def unknown(page: str, root: Path) -> set[str]:
    """Return the test functions and modules that a page names and that do not exist."""
    known = set(PLACEHOLDERS)
    for file in (root / "tests").rglob("*.py"):
        known.add(file.stem)
        known.update(re.findall(r"\bdef (test_\w+)", file.read_text("utf-8")))
    return set(re.findall(r"\btest_\w+", page)) - known


def test_the_pages_name_only_tests_that_exist(project_root: Path) -> None:
    pages = [*project_root.glob("*.md"), *(project_root / "docs").rglob("*.md")]
    found = {page.name: unknown(page.read_text("utf-8"), project_root) for page in pages}
    assert {name: names for name, names in found.items() if names} == {}


def test_a_renamed_test_is_seen(project_root: Path) -> None:
    assert unknown("`test_of_another_name`, `test_guarantees.py`", project_root) == {"test_of_another_name"}


def test_a_made_up_test_is_seen(project_root: Path) -> None:
    page = "`tests/boundaries/test_guarantees.py::test_nothing` `tests/nowhere.py::test_a`"
    assert len(missing(page, project_root)) == 2
