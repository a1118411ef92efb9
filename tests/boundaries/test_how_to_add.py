"""Guard on "How to add" in CONTRIBUTING: the named files exist, and each addition touches only a few."""

from __future__ import annotations

import re
from pathlib import Path

PATH = re.compile(
    r"`((?:edgeq|converters|device_agents|tests|benchmarks|docs)/[\w./-]+\.\w+|README\.md|CHANGELOG\.md)`"
)
STEP = re.compile(r"^\d+\. ", re.MULTILINE)
# Files that a step only points at, or that another kind of addition changes.
REFERENCE = re.compile(r"\b(?:as\s+in|from)\s+`[\w./-]+`|\bgoes\s+to\s+`[\w./-]+` instead")
MOST_FILES = {
    "A calibrator": 3,
    "A device platform": 4,
    "A telemetry signal": 6,
    "A blueprint key": 6,
    "A CLI command": 5,
    "An agent verb": 6,
    "An error code": 4,
}


def additions(page: str) -> dict[str, str]:
    """Return the texts of "How to add" by their headings."""
    section = page.partition("\n## How to add\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def count_files(text: str) -> int:
    """Return how many files the steps of an addition change; a step that names none changes one."""
    named: set[str] = set()
    other = 0
    for step in STEP.split(text.strip())[1:]:
        paths = PATH.findall(REFERENCE.sub("", step.partition("\n\n")[0]))
        if not paths or step.startswith("One of"):
            other += 1
        else:
            named.update(paths)
    return len(named) + other


def missing(text: str, root: Path) -> list[str]:
    """Return the named files that do not exist; of a new file, the folder must exist."""
    named = [(name, root / name) for name in PATH.findall(text)]
    return [
        name for name, path in named if not (path.parent.is_dir() if "NAME" in path.name else path.is_file())
    ]


def test_every_named_file_exists(project_root: Path) -> None:
    parts = additions((project_root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert set(parts) == set(MOST_FILES)
    assert [(title, name) for title, text in parts.items() for name in missing(text, project_root)] == []
    assert all(PATH.findall(text) for text in parts.values())


def test_an_addition_touches_few_files(project_root: Path) -> None:
    parts = additions((project_root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert {title: count_files(text) for title, text in parts.items()} == MOST_FILES


def test_a_made_up_file_and_a_long_list_are_seen(project_root: Path) -> None:
    steps = "1. `edgeq/nowhere.py`\n2. `edgeq/cli/NAME.py`\n3. `edgeq/none/NAME.py`\n"
    (text,) = additions(f"\n## How to add\n\n### A part\n\n{steps}\n## Changes\n").values()
    assert missing(text, project_root) == ["edgeq/nowhere.py", "edgeq/none/NAME.py"]
    assert count_files(text) == 3


def test_every_file_of_a_step_counts() -> None:
    steps = """
Imitate `edgeq/x.py`.

1. `edgeq/a.py`: as in `edgeq/b.py`; a counter goes to `edgeq/c.py` instead.
2. One of `edgeq/d.py` (host) or
   `edgeq/e.py`.
3. The code that raises it.
4. `edgeq/a.py` and `edgeq/f.py`, listed
   in `edgeq/g.py`.

`edgeq/i.py` stays.
"""
    assert count_files(steps) == 5
