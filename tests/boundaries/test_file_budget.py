"""One idea a file: no file over 500 lines, the median under 150, and no drawer for leftovers."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}


def sources(root: Path) -> list[Path]:
    return sorted(
        path
        for package in ("edgeq", "converters/edgeq_converters", "device_agents/edgeq_agent")
        for path in (root / package).rglob("*.py")
    )


def over_budget(paths: list[Path]) -> list[str]:
    return [
        f"{path.name}: {lines} lines"
        for path in paths
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    ]


def test_no_file_is_over_500_lines(project_root: Path) -> None:
    assert over_budget(sources(project_root)) == []


def test_a_long_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("\n" * 501)
    assert over_budget([tmp_path / "long.py"]) == ["long.py: 501 lines"]


def test_the_median_is_under_150_lines(project_root: Path) -> None:
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in sources(project_root)]
    assert median(lengths) < 150


def test_no_file_is_a_drawer(project_root: Path) -> None:
    assert not {path.name for path in sources(project_root)} & FORBIDDEN_NAMES


def test_every_file_says_what_it_owns(project_root: Path) -> None:
    silent = [
        str(path.relative_to(project_root))
        for path in sources(project_root)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
