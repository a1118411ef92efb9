"""Tiny models of each kind, made once a session, and data that fits them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli import main
from tests.once import Once


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a temporary folder: the Python API records into the current folder's workspace."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def models(made_by: Callable[[str], Path]) -> Path:
    """A folder with one tiny model of each kind of source."""
    return made_by("make_models.py")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npz of 40 labelled samples for the tiny models."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    random = np.random.default_rng(11)
    np.savez(path, x=random.normal(size=(40, 8, 8, 1)).astype(np.float32), y=random.integers(0, 3, 40))
    return path


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What a command line gave."""

    status: int
    out: str
    err: str


@pytest.fixture
def edgeq(workspace: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Run one command line in this process; the current folder is an empty workspace."""

    def run(*words: object) -> CommandResult:
        capfd.readouterr()
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return CommandResult(status=status, out=out, err=err)

    return run


@pytest.fixture(scope="session")
def tunable(made_by: Callable[[str], Path], once: Once) -> Path:
    """A folder with trained Keras models and their data, and files that cannot be trained."""
    trained = made_by("make_tunable.py")
    return once.folder("tunable", lambda folder: _spoil(trained, folder))


def _spoil(trained: Path, folder: Path) -> None:
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with np.load(folder / "train.npz") as train:
        x, y = train["x"], train["y"]
    np.savez(folder / "high.npz", x=x, y=y + 7)
    np.savez(folder / "nan.npz", x=np.where(np.arange(len(x))[:, None, None, None] == 3, np.nan, x), y=y)
    np.savez(folder / "rows.npz", x=x[..., 0], y=y)
    (folder / "other.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (folder / "other.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CommandResult]:
    """Run one command line in a process and a workspace of their own: for what a whole module looks at."""
    workspace = tmp_path_factory.mktemp("workspace")

    def run(*words: object) -> CommandResult:
        code = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
            cwd=workspace,
        )
        return CommandResult(status=done.returncode, out=done.stdout, err=done.stderr)

    return run
