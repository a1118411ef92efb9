"""Guard on plain English: no phrase that `prose.py` lists, no docstring that begins with a clause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boundaries.prose import files, offences

MODEL_COMMANDS = (
    *("calibrate", "check", "convert", "demo", "edgetpu", "evaluate", "lineage", "options", "progress"),
    *("recorded", "reproduce", "runs", "search", "select", "sensitivity", "tune"),
)
# Folders and files whose prose is finished. It grows until it is the whole tree.
FINISHED: tuple[str, ...] = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "converters",
    "device_agents/edgeq_agent/__init__.py",
    "device_agents/edgeq_agent/__main__.py",
    "device_agents/edgeq_agent/autostart",
    "device_agents/edgeq_agent/blobs",
    "device_agents/edgeq_agent/calls",
    "device_agents/edgeq_agent/errors.py",
    "device_agents/edgeq_agent/http",
    "device_agents/edgeq_agent/platforms",
    "device_agents/edgeq_agent/storage",
    "device_agents/edgeq_agent/trust",
    "device_agents/edgeq_agent/verbs",
    "device_agents/edgeq_agent/wire.py",
    "docs",
    "edgeq/__init__.py",
    "edgeq/blueprint",
    *(f"edgeq/cli/{name}.py" for name in MODEL_COMMANDS),
    "edgeq/conversion",
    "edgeq/converters_client.py",
    "edgeq/demo",
    "edgeq/doctor.py",
    "edgeq/errors.py",
    "edgeq/evaluation",
    "edgeq/files.py",
    "edgeq/search",
    "edgeq/selection",
    "edgeq/store",
    "edgeq/units.py",
    "edgeq/values.py",
    "edgeq/version.py",
    "examples",
    "tests/agent/autostart",
    "tests/agent/calls",
    "tests/agent/platforms",
    "tests/blueprint",
    "tests/boundaries",
    "tests/cli",
    "tests/demo",
    "tests/evaluation",
    "tests/search",
    "tests/selection",
    "tests/store",
)


@pytest.mark.parametrize("part", FINISHED)
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
