"""One run of the demo, shared by all its tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EDGEQ = Path(sys.executable).with_name("edgeq")


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """The results of one run of `edgeq demo --json`."""

    folder: Path
    document: dict[str, Any]
    stderr: str
    seconds: float


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Run the demo once."""
    folder = tmp_path_factory.mktemp("demo") / "edgeq-demo"
    started_s = time.monotonic()
    done = subprocess.run(
        [EDGEQ, "demo", "--json", "--folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=folder.parent,
    )
    seconds = time.monotonic() - started_s
    assert done.returncode == 0, done.stderr
    return DemoRun(
        folder=folder, document=json.loads(done.stdout), stderr=done.stderr, seconds=seconds
    )  # fmt: skip
