"""The README's commands and Python lines, run as they are written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import EDGEQ, DemoRun

pytestmark = [pytest.mark.convert, pytest.mark.slow]


def tour_of(readme: str) -> list[str]:
    block = re.search(r"<!-- tour -->\n```bash\n(.*?)```\n<!-- end of tour -->", readme, re.S)
    assert block, "the README has no tour"
    return [line for line in block[1].splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tour") / "folder"
    shutil.copytree(demo.folder, copy, ignore=shutil.ignore_patterns("device", "devices.toml", "store.db*"))
    return copy


@pytest.mark.timeout(600)
def test_the_tour_runs_as_it_is_written(project_root: Path, folder: Path) -> None:
    lines = tour_of((project_root / "README.md").read_text(encoding="utf-8"))
    assert [line.split()[2] for line in lines[-2:]] == ["stop", "remove"]
    failed: list[str] = []
    try:
        for line in lines[:-2]:
            words = shlex.split(line)
            assert words[0] == "edgeq"
            done = subprocess.run(
                [EDGEQ, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=120, check=False
            )
            if done.returncode != 0:
                failed.append(f"{line}: {done.returncode}: {done.stderr}")
                break
    finally:
        ended = [
            subprocess.run(
                [EDGEQ, *shlex.split(line)[1:]],
                cwd=folder, capture_output=True, text=True, timeout=60, check=False,
            )
            for line in lines[-2:]
        ]  # fmt: skip
    assert failed == []
    assert [each.stderr for each in ended if each.returncode != 0] == []


# What the block on hardware needs and this machine has not: another machine, a file of hosts, a program.
NOT_HERE = ("edgeq devices add ", "edgeq devices import ", "edgeq devices native ")
# A boot service needs systemd or cron, which a container has not.
ALLOWED = {"edgeq devices service ": "EQ557"}
# What takes long, with a quick equivalent; the tour runs with the full effort.
QUICKER = {
    "--soak 10m": "--soak 1s",
    "--scheme int8 --calibration": "--scheme int8 --effort quick --calibration",
    "--training training.npz": "--training training.npz --epochs 1",
    "edgeq search blueprint.toml": "edgeq search blueprint.toml --candidates 2",
}


def blocks_after_the_tour(readme: str) -> list[list[str]]:
    """Return the commands of each bash block after the tour."""
    rest = readme.partition("<!-- end of tour -->")[2]
    blocks = [
        [line for line in block.splitlines() if line.startswith("edgeq ") and not line.startswith(NOT_HERE)]
        for block in re.findall(r"```bash\n(.*?)```", rest, re.S)
    ]
    return [lines for lines in blocks if lines]


def refusal_of(line: str) -> str | None:
    """Return the code with which a line is refused according to its comment."""
    refused = re.search(r"# refused \((EQ\d{3})\)", line)
    return refused[1] if refused else None


def run_edgeq(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    for slow, quick in QUICKER.items():
        line = line.replace(slow, quick)
    return subprocess.run(
        [EDGEQ, *shlex.split(line, comments=True)[1:]],
        cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def run_line(line: str, folder: Path) -> str | None:
    """Run one line; return what is other than the README says."""
    done = run_edgeq(line, folder)
    refused = re.search(r"error\[(EQ\d{3})\]", done.stderr)
    code = refused[1] if refused else None
    expected = {refusal_of(line), *(code for start, code in ALLOWED.items() if line.startswith(start))}
    if code in expected and (code is not None or done.returncode == 0):
        return None
    return f"{line}: {done.returncode}: {done.stderr}"


@pytest.fixture(scope="module")
def workspace_after_the_tour(
    project_root: Path, demo: DemoRun, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The demo's folder with the files of the tour, and the emulated device that the README suggests."""
    copy = tmp_path_factory.mktemp("readme") / "folder"
    shutil.copytree(demo.folder, copy, ignore=shutil.ignore_patterns("device"))
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    needed = [line for line in tour_of(readme) if line.startswith(("edgeq convert", "edgeq bundle"))]
    (emulate,) = re.findall(r"emulated device: `(edgeq devices emulate [^`]+)`", readme)
    assert [problem for line in (*needed, emulate) if (problem := run_line(line, copy))] == []
    exported = run_edgeq("edgeq keys export --workspace publisher", copy)
    (copy / "publisher.pub").write_text(exported.stdout)
    yield copy
    device = emulate.split()[3]
    # A served model does not end with the SSH server of its device.
    assert run_line(f"edgeq devices service {device} --disable", copy) is None
    assert run_line(f"edgeq devices stop {device}", copy) is None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(10))
def test_the_other_commands_run_as_they_are_written(
    project_root: Path, workspace_after_the_tour: Path, number: int
) -> None:
    blocks = blocks_after_the_tour((project_root / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == 10
    problems = (run_line(line, workspace_after_the_tour) for line in blocks[number])
    assert [problem for problem in problems if problem] == []


def test_the_demo_leaves_the_data_that_the_readme_names(project_root: Path, folder: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--(?:data|calibration|evaluation|training) (\S+\.npz)", readme))
    assert "training.npz" in named
    assert [name for name in sorted(named) if not (folder / name).is_file()] == []


def python_blocks(root: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)


def test_every_quicker_form_is_used(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    assert [slow for slow in QUICKER if slow not in readme] == []


def test_the_python_lines_run(project_root: Path, folder: Path) -> None:
    _, block = python_blocks(project_root)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "output_sqnr_db=" in done.stdout


def test_the_applications_lines_run_on_the_demos_device(project_root: Path, demo: DemoRun) -> None:
    block, _ = python_blocks(project_root)
    (home,) = {path.parents[2] for path in demo.folder.rglob("models/digits/current")}
    before = "import numpy as np; image = np.load('evaluation.npz')['x'][0]\n"
    done = subprocess.run(
        [sys.executable, "-c", before + block + "print(probabilities.shape)"],
        cwd=demo.folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "EDGEQ_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["(10,)"] or done.stdout.split() == ["(1,", "10)"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("convert_and_select.py", ["float16:", "int8:", "chosen: int8"]),
        ("deploy_to_loopback.py", ["changed: True", "changed: False", "serving: ['digits']"]),
    ],
)
def test_the_examples_run(project_root: Path, folder: Path, script: str, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, project_root / "examples" / script, str(folder)],
        cwd=folder, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


def test_the_readme_shows_what_the_demo_prints(project_root: Path, demo: DemoRun) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- demo output -->\n```\n(.*?)```\n<!-- end of demo output -->", readme, re.S)
    assert block, "the README shows no output"

    # The last two lines are those of the run without --json.
    shown, ending = words_of(block[1])[:-2], block[1].splitlines()[-2:]
    assert shown == words_of(demo.stderr)[: len(shown)]
    assert re.fullmatch(r"done in \d+ s; the report is edgeq-demo/report\.html", ending[0])
    assert ending[1] == "next: cd edgeq-demo && edgeq check blueprint.toml"


def words_of(output: str) -> list[str]:
    """Return the lines of the demo without what changes from run to run, such as figures and addresses."""
    changing = (
        r"\S+@\S+, SHA256:\S+", r"release [0-9a-f]{12}", r"strongest: [^,]+, PSI",
        r"[\d.]+(e\+\d+)?( (ns|us|ms|s|B|KiB|MiB|GiB|dB|%))?",
    )  # fmt: skip
    return [re.sub("|".join(changing), "#", line) for line in output.splitlines() if line.strip()]
