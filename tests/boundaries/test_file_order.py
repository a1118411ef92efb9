"""Tests of several processes begin with the files that take longest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.file_order import MORE_S, longest_first


@dataclass(frozen=True)
class Planned:
    nodeid: str
    slow: bool = False

    def get_closest_marker(self, name: str) -> object | None:
        return self if self.slow and name == "slow" else None


def test_the_files_that_take_longest_begin_first(project_root: Path) -> None:
    long = max(MORE_S, key=MORE_S.__getitem__)
    quick = [Planned(f"tests/a.py::test[{number}]") for number in range(9)]
    slow = [Planned("tests/b.py::test_one", slow=True), *(Planned(f"tests/b.py::test_{n}") for n in "zy" * 5)]
    one = [Planned(f"{long}::test", slow=True)]
    assert longest_first([*quick, *slow, *one]) == [*one, *slow, *quick]
    assert longest_first([*one, *slow, *quick]) == [*one, *slow, *quick]


def test_every_long_file_exists(project_root: Path) -> None:
    assert [name for name in MORE_S if not (project_root / name).is_file()] == []
