"""Guard on the guarantees of docs/deploy.md and docs/experiments.md: each names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def missing(page: str, root: Path) -> list[str]:
    """Return the tests that a page names and that do not exist."""
    absent = []
    for path, name in NAMED.findall(page):
        file = root / path
        tree = ast.parse(file.read_text("utf-8")) if file.exists() else ast.Module(body=[], type_ignores=[])
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            absent.append(f"{path}::{name}")
    return absent


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
    absent = {page.name: unknown(page.read_text("utf-8"), project_root) for page in pages}
    assert {name: names for name, names in absent.items() if names} == {}


def test_a_renamed_test_is_seen(project_root: Path) -> None:
    assert unknown("`test_of_another_name`, `test_guarantees.py`", project_root) == {"test_of_another_name"}


# Pages that name tests without their folder, which the page states once.
SHORT = re.compile(r"`(?=[\w/]*test_\w+\.py|::)((?:\w+/)*test_\w+\.py)?(?:::((?:\w+::)?\w+))?`")
FOLDERS = {"runtime": "tests/agent", "rollout": "tests/fleet/rollout"}


def missing_short(page: str, folder: Path) -> list[str]:
    """Return the missing ones of `test_file.py`, `test_file.py::test_name` and `::test_name` in a page."""
    absent, file = [], ""
    for name, test in SHORT.findall(page):
        file = name or file
        text = (folder / file).read_text("utf-8") if file and (folder / file).is_file() else ""
        if not text or (test and not re.search(rf"(?:def|class) {test.rpartition('::')[2]}\b", text)):
            absent.append(f"{file}::{test}")
    return absent


@pytest.mark.parametrize(("name", "folder"), FOLDERS.items())
def test_every_test_that_a_page_names_exists(project_root: Path, name: str, folder: str) -> None:
    page = (project_root / "docs" / f"{name}.md").read_text("utf-8")
    assert len(SHORT.findall(page)) > 5
    assert missing_short(page, project_root / folder) == []


def test_every_test_that_the_security_page_names_exists(project_root: Path) -> None:
    page = (project_root / "SECURITY.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (project_root / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 20
    assert sorted(name for name in named if f"def {name}(" not in sources) == []
    assert [
        path for path in re.findall(r"`(tests/[\w/]+\.py)`", page) if not (project_root / path).exists()
    ] == []


def test_a_made_up_test_is_seen(project_root: Path) -> None:
    page = "`tests/boundaries/test_guarantees.py::test_nothing` `tests/nowhere.py::test_a`"
    assert len(missing(page, project_root)) == 2
    page = "`test_guarantees.py::test_a_made_up_test_is_seen`, `::test_none`, `test_nowhere.py`"
    here = project_root / "tests" / "boundaries"
    assert missing_short(page, here) == ["test_guarantees.py::test_none", "test_nowhere.py::"]
