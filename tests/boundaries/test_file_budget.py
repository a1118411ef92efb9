"""File sizes: no file over 500 lines, no fragment that only one module uses, no catch-all module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = {
    "edgeq": "edgeq",
    "converters/edgeq_converters": "edgeq_converters",
    "device_agents/edgeq_agent": "edgeq_agent",
}
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}
LONGEST = 500
FRAGMENT = 40

# Modules under FRAGMENT lines that only one other module imports, and the reason why they stand alone.
ALONE = {
    "edgeq.blueprint.key_lines": "a pure scan of a text; the module that uses it reads files",
    "edgeq_converters.calibration.drift": "a pure statistic; the job that uses it reads and writes files",
}

# Modules that import one short module for each kind of thing: a new kind is a new module, however short.
REGISTRIES = {"edgeq_agent.platforms.registry"}


def sources(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def modules(root: Path) -> dict[str, Path]:
    """Return the modules of the three packages by their dotted name."""
    named = {}
    for folder, package in PACKAGES.items():
        for path in (root / folder).rglob("*.py"):
            parts = (package, *path.relative_to(root / folder).with_suffix("").parts)
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def over_budget(paths: list[Path]) -> list[str]:
    return [f"{path.name}: {lines_of(path)} lines" for path in paths if lines_of(path) > LONGEST]


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module imports, at its top, in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(named: dict[str, Path]) -> dict[str, set[str]]:
    """Return the modules that import each module."""
    users: dict[str, set[str]] = {name: set() for name in named}
    for name, path in named.items():
        for target in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if target in users and target != name:
                users[target].add(name)
    return users


def fragments(named: dict[str, Path]) -> dict[str, str]:
    """Return the short modules that exactly one other module imports: name -> that module.

    A package's `__init__` that exports a module's names stands for any number of users.
    """
    return {
        name: user
        for name, users in importers(named).items()
        if len(users) == 1 and lines_of(named[name]) < FRAGMENT and not named[name].stem.startswith("__")
        for user in users
        if user != name.rpartition(".")[0] and user not in REGISTRIES
    }


def test_no_file_is_over_500_lines(project_root: Path) -> None:
    assert over_budget(sources(project_root)) == []


def test_a_long_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("\n" * 501)
    assert over_budget([tmp_path / "long.py"]) == ["long.py: 501 lines"]


def test_no_fragment_has_a_single_user(project_root: Path) -> None:
    single = fragments(modules(project_root))
    merge = [f"{name}: merge it into {user}" for name, user in single.items() if name not in ALONE]
    assert merge == []
    assert sorted(set(ALONE) - set(single)) == [], "these are not fragments any more"


def test_a_fragment_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "edgeq"
    folder.mkdir()
    for other in list(PACKAGES)[1:]:
        (tmp_path / other).mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("from edgeq import shared\n\n\ndef f():\n    from edgeq.small import x\n")
    (folder / "two.py").write_text("from edgeq.shared import y\n")
    (folder / "small.py").write_text("x = 1\n")
    (folder / "shared.py").write_text("y = 1\n")
    (folder / "unused.py").write_text("z = 1\n")
    assert fragments(modules(tmp_path)) == {"edgeq.small": "edgeq.one"}


def test_no_file_is_a_catch_all(project_root: Path) -> None:
    assert not {path.name for path in sources(project_root)} & FORBIDDEN_NAMES


def test_every_file_has_a_docstring(project_root: Path) -> None:
    silent = [
        str(path.relative_to(project_root))
        for path in sources(project_root)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
