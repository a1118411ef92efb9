"""Tiny models of each kind, made once a session, and data that fits them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli import main


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny model of each kind of source."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("make_models.py")
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npz of 40 labelled samples for the tiny models."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    random = np.random.default_rng(11)
    np.savez(path, x=random.normal(size=(40, 8, 8, 1)).astype(np.float32), y=random.integers(0, 3, 40))
    return path


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command line gave."""

    status: int
    out: str
    err: str


@pytest.fixture
def edgeq(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run one command line in this process."""

    def run(*words: object) -> Said:
        capfd.readouterr()
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Said(status=status, out=out, err=err)

    return run
