"""The README's commands and Python lines, run as they are written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
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


def test_the_tour_runs_as_it_is_written(project_root: Path, folder: Path) -> None:
    lines = tour_of((project_root / "README.md").read_text(encoding="utf-8"))
    assert lines[-1].startswith("edgeq devices stop")
    failed: list[str] = []
    try:
        for line in lines[:-1]:
            words = shlex.split(line)
            assert words[0] == "edgeq"
            done = subprocess.run(
                [EDGEQ, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=120, check=False
            )
            if done.returncode != 0:
                failed.append(f"{line}: {done.returncode}: {done.stderr}")
                break
    finally:
        stop = shlex.split(lines[-1])[1:]
        stopped = subprocess.run(
            [EDGEQ, *stop], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
    assert failed == []
    assert stopped.returncode == 0, stopped.stderr


def test_the_demo_leaves_the_data_that_the_readme_names(project_root: Path, folder: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--(?:data|calibration|evaluation|training) (\S+\.npz)", readme))
    assert "training.npz" in named
    assert [name for name in sorted(named) if not (folder / name).is_file()] == []


def python_blocks(root: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)


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
