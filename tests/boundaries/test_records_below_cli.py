"""Records are written below the command line: no module of `edgeq.cli` writes to the store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

DATABASE = "edgeq/store/database.py"


def called(node: ast.AST) -> set[str]:
    """Return the names of the functions and methods that a piece of code calls."""
    functions = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {func.attr for func in functions if isinstance(func, ast.Attribute)} | {
        func.id for func in functions if isinstance(func, ast.Name)
    }


def writing_methods(source: str) -> set[str]:
    """Return the public methods of `Store` that begin a transaction, themselves or through another method."""
    (store,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Store"
    ]
    calls = {node.name: called(node) for node in store.body if isinstance(node, ast.FunctionDef)}
    writing = {name for name, names in calls.items() if "begin" in names}
    while more := {name for name, names in calls.items() if names & writing} - writing:
        writing |= more
    return {name for name in writing if not name.startswith("_")}


def writes(tree: ast.AST, methods: set[str]) -> Iterator[str]:
    """Yield the uses of writing methods, and of functions that only record, which are named `record_`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (node.attr in methods or node.attr.startswith("record_")):
            yield f"line {node.lineno}: {node.attr}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name.startswith("record_"):
                    yield f"line {node.lineno}: {alias.name}"


def test_the_command_line_writes_no_records(project_root: Path) -> None:
    methods = writing_methods((project_root / DATABASE).read_text("utf-8"))
    modules = sorted((project_root / "edgeq" / "cli").rglob("*.py"))
    assert len(modules) > 40
    writes_by_module = {
        str(path.relative_to(project_root)): list(writes(ast.parse(path.read_text("utf-8")), methods))
        for path in modules
    }
    assert {path: lines for path, lines in writes_by_module.items() if lines} == {}


def test_only_the_methods_that_begin_a_transaction_are_writing_ones(project_root: Path) -> None:
    methods = writing_methods((project_root / DATABASE).read_text("utf-8"))
    assert {"record_run", "record_bench", "record_experiment", "record_audit"} < methods
    assert {"put_release", "ingest"} < methods
    assert not methods & {"open", "close", "runs", "release", "releases", "windows", "experiments", "audit"}


def test_a_planted_write_is_seen() -> None:
    planted = (
        "with Store.open(path) as store:\n    store.put_release(release, manifest, None)\n    store.runs()\n"
    )
    assert list(writes(ast.parse(planted), {"put_release"})) == ["line 2: put_release"]
    planted = "from edgeq.fleet.deploy import deploy_one, record_deploy\n"
    assert list(writes(ast.parse(planted), set())) == ["line 1: record_deploy"]
