"""Guard on plain English: no phrase that `prose.py` lists, no docstring that begins with a clause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boundaries.prose import files, offences

ROOT = Path(__file__).resolve().parents[2]

# Everything with prose, in parts of a readable size.
WHOLE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples", "benchmarks")
SPLIT = ("edgeq", "converters/edgeq_converters", "device_agents/edgeq_agent", "tests")


def parts() -> list[str]:
    inside = [
        f"{folder}/{path.name}"
        for folder in SPLIT
        for path in sorted((ROOT / folder).iterdir())
        if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
    ]
    return [*WHOLE, *inside]


@pytest.mark.parametrize("part", parts())
def test_the_prose_is_plain(project_root: Path, part: str) -> None:
    checked = files(project_root / part)
    assert checked, part
    assert [str(offence) for path in checked for offence in offences(path)] == []


@pytest.mark.parametrize(
    ("source", "phrase"),
    [
        ('"""The file is no database."""\n', "is no "),
        ('"""A part."""\n# the agent is told the rest\nx = 1\n', "told"),
        ('"""A part."""\nraise ValueError("make the bundle anew")\n', "anew"),
        ('"""A part.\n\nA test that nobody\nneeds: the way to\na device is short.\n"""\n', "way to a device"),
        ('"""A part."""\ndef told_twice():\n    pass\n', "told"),
        ('"""What a device keeps."""\n', "What a device keeps."),
    ],
)
def test_an_offence_is_found(tmp_path: Path, source: str, phrase: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert phrase in [offence.phrase for offence in offences(path)]


def test_an_offence_in_a_page_is_found_but_not_in_its_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```\nnobody\n```\n\n`somebody` calls.\nIt runs for\never.\n", encoding="utf-8")
    assert [(offence.line, offence.phrase) for offence in offences(page)] == [(8, "for ever")]


@pytest.mark.parametrize(
    "source",
    [
        '"""There is no file, and it is no longer one; tell apart two of them; it is not told_."""\n',
        '"""Read the file."""\n# There are no limits.\nKEY = "told"\n',
    ],
)
def test_plain_prose_passes(tmp_path: Path, source: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert offences(path) == []
