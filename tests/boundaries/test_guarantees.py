"""Guard on what the pages guarantee: each row names a test that exists and that sees the row's codes."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from edgeq import errors

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def functions_of(file: Path) -> frozenset[str]:
    """Return the names of the functions of a module; none of a file that does not exist."""
    tree = ast.parse(file.read_text("utf-8")) if file.exists() else ast.Module(body=[], type_ignores=[])
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def missing(page: str, root: Path) -> list[str]:
    """Return the tests that a page names and that do not exist."""
    return [f"{path}::{name}" for path, name in NAMED.findall(page) if name not in functions_of(root / path)]


SHORT_NAME = re.compile(r"`[\w/.]*::[\w:]*test_\w+`")


@pytest.mark.parametrize(
    ("name", "heading", "count"),
    [
        ("deploy", "What the device guarantees", 15),
        ("deploy", "What the connection guarantees", 15),
        ("experiments", "Guarantees and their tests", 12),
        ("runtime", "Guarantees and their tests", 25),
    ],
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
    assert [row for row in rows if not (NAMED.search(row) or SHORT_NAME.search(row))] == []


PLACEHOLDERS = {"test_NAME"}


@cache
def names_of_tests(root: Path) -> frozenset[str]:
    """Return the names of all test functions and modules."""
    known = set(PLACEHOLDERS)
    for file in (root / "tests").rglob("*.py"):
        known.add(file.stem)
        known.update(re.findall(r"\bdef (test_\w+)", file.read_text("utf-8")))
    return frozenset(known)


def unknown(page: str, root: Path) -> set[str]:
    """Return the test functions and modules that a page names and that do not exist."""
    return set(re.findall(r"\btest_\w+", page)) - names_of_tests(root)


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


PROOF = re.compile(r"`(test_\w+|tests/[\w/]+\.py)`")


def sources_of(named: set[str], root: Path) -> dict[str, str]:
    """Return the source of each of these test functions by its name, and of each test module by its path."""
    sources: dict[str, str] = {}
    for file in sorted((root / "tests").rglob("test_*.py")):
        text = file.read_text("utf-8")
        sources[str(file.relative_to(root))] = text
        if named.isdisjoint(re.findall(r"\bdef (test_\w+)", text)):
            continue
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name in named:
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                own = "\n".join(lines[first - 1 : node.end_lineno])
                sources[node.name] = sources.get(node.name, "") + own
    return sources


def unproved(page: str, sources: dict[str, str]) -> list[str]:
    """Return what no test shows of the rows of a page: `row: code`, or the row without a test."""
    classes = {cls.code: cls.__name__ for cls in vars(errors).values() if hasattr(cls, "exit_status")}
    absent = []
    for line in page.splitlines():
        if not line.startswith("| ") or "proved by" in line or "not applicable" in line:
            continue
        shown = "".join(sources.get(name, "") for name in PROOF.findall(line))
        if not shown:
            absent.append(line)
        # A test of the host names the class of an error, one of the device its code.
        for code in sorted(set(re.findall(r"EQ\d{3}", line))):
            if code not in shown and f"{classes.get(code)}" not in shown:
                absent.append(f"{line.split('|')[1].strip()}: {code}")
    return absent


def test_every_row_of_the_security_page_is_proved(project_root: Path) -> None:
    page = (project_root / "SECURITY.md").read_text("utf-8")
    named = set(PROOF.findall(page))
    sources = sources_of(named, project_root)
    assert len(named) > 60
    assert sorted(named - set(sources)) == []
    assert unproved(page, sources) == []


def test_a_row_without_a_proof_is_seen() -> None:
    sources = {"test_a": "def test_a(): raises(BundleAltered)"}
    assert unproved("| a | EQ601 | `test_a` |", sources) == []
    assert unproved("| a | EQ601, EQ531 | `test_a` |", sources) == ["a: EQ531"]
    assert unproved("| a | nothing happens | |", sources) == ["| a | nothing happens | |"]


def test_a_made_up_test_is_seen(project_root: Path) -> None:
    page = "`tests/boundaries/test_guarantees.py::test_nothing` `tests/nowhere.py::test_a`"
    assert len(missing(page, project_root)) == 2
    page = "`test_guarantees.py::test_a_made_up_test_is_seen`, `::test_none`, `test_nowhere.py`"
    here = project_root / "tests" / "boundaries"
    assert missing_short(page, here) == ["test_guarantees.py::test_none", "test_nowhere.py::"]
