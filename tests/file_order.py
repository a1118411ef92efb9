"""The order of test files for several processes: those that take longest begin first.

A long file that begins last leaves the other processes without work. The order within a file stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

QUICK_S, SLOW_S = 0.2, 0.7
"""Usual time of a test without and with the marker `slow`."""
MORE_S = {
    "tests/agent/damage/test_files.py": 60,
    "tests/agent/damage/test_paths.py": 150,
    "tests/agent/test_power_cut.py": 200,
    "tests/converters/test_memory.py": 100,
    "tests/converters/test_pruning.py": 120,
    "tests/converters/test_qat.py": 100,
    "tests/converters/test_random_layers.py": 90,
    "tests/converters/test_real_models.py": 120,
    "tests/converters/test_records.py": 60,
    "tests/converters/test_useless_commands.py": 120,
    "tests/demo/test_demo.py": 60,
    "tests/demo/test_readme.py": 200,
    "tests/devices/test_arm64.py": 150,
    "tests/devices/test_armhf.py": 150,
    "tests/devices/test_network.py": 100,
    "tests/devices/test_older_systems.py": 200,
    "tests/pipeline/test_run.py": 120,
    "tests/search/test_search.py": 100,
}
"""Seconds of files that take longer than the number of their tests says."""


class Item(Protocol):
    """A test, as pytest collects it."""

    @property
    def nodeid(self) -> str:
        """`tests/cli/test_ui.py::test_name[case]`."""

    def get_closest_marker(self, name: str) -> object | None:
        """Return a marker of the test, or None."""


T = TypeVar("T", bound=Item)


def file_of(item: Item) -> str:
    return item.nodeid.partition("::")[0]


def longest_first(items: Sequence[T]) -> list[T]:
    """Return the tests file by file, the longest file first; all processes get the same order."""
    seconds: dict[str, float] = {}
    for item in items:
        file = file_of(item)
        seconds.setdefault(file, MORE_S.get(file, 0.0))
        seconds[file] += SLOW_S if item.get_closest_marker("slow") else QUICK_S
    return sorted(items, key=lambda item: (-seconds[file_of(item)], file_of(item)))
