"""Guard on the pages: they name every error code, command and JSON schema, and their links work."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgeq import errors
from edgeq.cli.root import COMMANDS
from edgeq_converters.errors import CODES

ROW = re.compile(r"^\| (EQ\d{3}) \| (\w+) \| (.+?) \| (\d+) \| (yes|) ?\|$")
SCHEMA = re.compile(r"[\"'`](edgeq\.[a-z.-]+/\d+)[\"'`]")


def documented(text: str) -> dict[str, tuple[str, int, bool]]:
    rows = (ROW.match(line) for line in text.splitlines())
    return {row[1]: (row[2], int(row[4]), row[5] == "yes") for row in rows if row}


def tree() -> list[type[errors.EdgeqError]]:
    return [
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.EdgeqError)
    ]


def codes_in(folder: Path) -> set[str]:
    return {
        code
        for path in folder.rglob("*.py")
        for code in re.findall(r"\"(EQ\d{3})\"", path.read_text("utf-8"))
    }


@pytest.fixture
def page(project_root: Path) -> dict[str, tuple[str, int, bool]]:
    return documented((project_root / "docs" / "errors.md").read_text(encoding="utf-8"))


def test_every_class_is_documented_as_it_is(page: dict[str, tuple[str, int, bool]]) -> None:
    for cls in tree():
        assert page[cls.code] == (cls.__name__, int(cls.exit_status), cls.transient), cls.code


def test_the_documented_codes_are_those_of_the_sources(
    project_root: Path, page: dict[str, tuple[str, int, bool]]
) -> None:
    used = {cls.code for cls in tree()} | set(CODES)
    for package in ("edgeq", "converters", "device_agents"):
        used |= codes_in(project_root / package)
    assert used == set(page)


def test_the_guard_sees_a_missing_code() -> None:
    row = "| EQ101 | UsageError | an argument is wrong | 2 | |"
    assert documented(row) == {"EQ101": ("UsageError", 2, False)}
    assert documented("| EQ10 | broken |") == {}


def listed(docstring: str) -> dict[str, tuple[str, int]]:
    """Return the classes that the docstring of edgeq.errors lists: name -> (code pattern, exit status)."""
    rows = re.findall(r"^[|`\- ]*([A-Z]\w+) +(EQ[\dx]{3}) +exit (\d+)", docstring, re.MULTILINE)
    return {name: (code, int(status)) for name, code, status in rows}


def misplaced(docstring: str) -> list[str]:
    """Return the classes whose code or exit status is not that of their nearest listed ancestor."""
    lines = listed(docstring)
    names = []
    for cls in tree():
        code, status = next(lines[one.__name__] for one in cls.__mro__ if one.__name__ in lines)
        if not re.fullmatch(code.replace("x", r"\d"), cls.code) or status != cls.exit_status:
            names.append(cls.__name__)
    return names


def test_the_tree_in_the_docstring_is_true() -> None:
    docstring = errors.__doc__ or ""
    assert set(listed(docstring)) <= {cls.__name__ for cls in tree()}
    assert misplaced(docstring) == []


def test_a_class_that_breaks_the_tree_is_seen() -> None:
    lines = (errors.__doc__ or "").splitlines()
    without = "\n".join(line for line in lines if "ToolMissing" not in line and "NotJustified" not in line)
    assert misplaced(without) == ["ToolMissing", "NotJustified"]


def test_every_exit_status_is_documented(project_root: Path) -> None:
    text = (project_root / "docs" / "errors.md").read_text(encoding="utf-8")
    for status in errors.ExitStatus:
        assert re.search(rf"^\| {int(status)} \|", text, re.M), status


def test_the_documented_schemas_are_those_of_the_sources(project_root: Path) -> None:
    used = {
        schema
        for package in ("edgeq", "device_agents", "converters")
        for path in (project_root / package).rglob("*.py")
        for schema in SCHEMA.findall(path.read_text(encoding="utf-8"))
    }
    page = set(SCHEMA.findall((project_root / "docs" / "json-output.md").read_text(encoding="utf-8")))
    assert used == page


def test_the_readme_names_every_command(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"edgeq {name}" not in readme] == []


def test_links_between_pages_work(project_root: Path) -> None:
    pages = [
        *project_root.glob("*.md"),
        *project_root.glob("docs/**/*.md"),
        *project_root.glob("examples/**/*.md"),
    ]
    dead = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert dead == []


# A home folder, or the folder of a test run. Other names under `/tmp` belong to no machine.
MACHINE_PATH = re.compile(r"/(?:home|root|Users)/\w+|/tmp/(?:pytest-|tmp)[\w-]+|/var/folders/\w+")
TEXT = (".py", ".md", ".toml", ".yaml", ".yml", ".json", ".jsonl", ".cfg", ".sh", ".service")


def naming_a_machine(root: Path, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name.endswith(TEXT) and MACHINE_PATH.search((root / name).read_text(encoding="utf-8"))
    ]


def test_the_tracked_files_name_no_path_of_a_machine(project_root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=project_root, capture_output=True, text=True, timeout=30, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    present = [name for name in listed.stdout.split("\0") if name and (project_root / name).is_file()]
    assert naming_a_machine(project_root, present) == []


def test_the_inventory_of_a_test_run_is_seen(tmp_path: Path) -> None:
    # As it was once committed.
    folder = "/tmp/" + "pytest-of-root/pytest-48"
    (tmp_path / "devices.toml").write_text(f'[devices.a]\nidentity = "{folder}/device-a0/identity"\n')
    (tmp_path / "page.md").write_text("A unix socket: `/tmp/edgeq.sock`, and the cache under `~/.cache`.\n")
    assert naming_a_machine(tmp_path, ["devices.toml", "page.md"]) == ["devices.toml"]
