"""Build a folder once for a whole run of the tests, however many processes run them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """The folder that the processes of one run share.

    Attributes:
        root: exists, and is the same for every worker of pytest-xdist.
    """

    root: Path

    def folder(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return the folder of this name; the first caller of the run builds it, the others wait.

        Args:
            name: of a folder below the root.
            build: fills the empty folder that it gets. The folder keeps this path.
        """
        folder = self.root / name
        ready = self.root / f"{name}.ready"
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a build that failed
                folder.mkdir()
                build(folder)
                ready.touch()
        return folder


def shared_root(basetemp: Path) -> Path:
    """Return the folder that all workers of a run see, given the temporary folder of this process."""
    # A worker's own folder is below that of the run.
    root = basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
    shared = root / "shared"
    shared.mkdir(exist_ok=True)
    return shared
