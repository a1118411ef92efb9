"""Guard on names: a value is called by what it is, and no module uses a private name of another one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = ("edgeq", "converters", "device_agents", "tests", "benchmarks", "examples")
OURS = ("edgeq", "edgeq_agent", "edgeq_converters", "tests", "benchmarks")
# They say how a value was obtained, not what it is.
VAGUE = {"found", "said", "told", "wanted"}
SETTERS = {"setattr", "delattr"}


def vague_names(source: str) -> list[str]:
    """Return `line: name` of each variable, parameter, attribute and function with a vague name."""
    places = [(node.lineno, name) for node, name in _defined(ast.parse(source)) if name in VAGUE]
    return [f"{line}: {name}" for line, name in sorted(places)]


def private_names(source: str) -> list[str]:
    """Return `line: name` of each import of a private name, and of each patch of one.

    ruff reports private attributes (SLF001); it sees neither imports nor strings.
    """
    places = [(node.lineno, name) for node, name in _borrowed(ast.parse(source)) if _is_private(name)]
    return [f"{line}: {name}" for line, name in sorted(places)]


def _defined(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.arg | ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node, node.attr.lstrip("_")
        elif isinstance(node, ast.arg):
            yield node, node.arg
        elif isinstance(node, ast.FunctionDef):
            yield node, node.name.lstrip("_")


def _borrowed(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS:
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in SETTERS:
            yield from (
                (node, argument.value)
                for argument in node.args[:2]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_private(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.startswith("__")


@pytest.mark.parametrize("folder", FOLDERS)
def test_values_are_named_by_what_they_are(project_root: Path, folder: str) -> None:
    files = sorted((project_root / folder).rglob("*.py"))
    assert files
    vague = {str(path): vague_names(path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in vague.items() if names} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_private_names_stay_private(project_root: Path, folder: str) -> None:
    files = sorted((project_root / folder).rglob("*.py"))
    private = {str(path): private_names(path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in private.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("found = 1\n", "1: found"),
        ("def f(wanted: int) -> None: ...\n", "1: wanted"),
        ("def _said() -> None: ...\n", "1: said"),
        ("for told in (1, 2):\n    pass\n", "1: told"),
        ("if (found := f()):\n    pass\n", "1: found"),
        ("class A:\n    def __init__(self) -> None:\n        self._found = 1\n", "3: found"),
    ],
)
def test_a_vague_name_is_seen(source: str, offence: str) -> None:
    assert vague_names(source) == [offence]


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("from edgeq.units import _BYTES\n", "1: _BYTES"),
        ("monkeypatch.setattr(units, '_BYTES', {})\n", "1: _BYTES"),
        ("monkeypatch.setattr('edgeq.units._BYTES', {})\n", "1: edgeq.units._BYTES"),
        ("setattr(units, '_BYTES', {})\n", "1: _BYTES"),
    ],
)
def test_a_private_name_is_seen(source: str, offence: str) -> None:
    assert private_names(source) == [offence]


def test_other_names_pass() -> None:
    source = "from edgeq.units import format_size\nfrom os import _exit\nsetattr(a, '__doc__', 'found it')\n"
    assert vague_names(source) == private_names(source) == []
