"""The demo's folder: marked as its own, so that it never overwrites other files."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeq.errors import UsageError

MARK = ".edgeq-demo"
# Downloaded wheels are kept for the next run; everything else is replaced.
KEPT = Path(".edgeq", "wheels")

BLUEPRINT = """\
# What must hold for the digits model. `edgeq check blueprint.toml` shows its limits.
schema_version = 1
name = "digits"
prefer = ["size", "accuracy"]

[model]
source = "digits.keras"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[data]
calibration = "calibration.npz"
evaluation = "evaluation.npz"

[variants]
schemes = ["float16", "int8"]

[require]
accuracy_drop_max = 0.01
agreement_min = 0.97
size_max = "40 KiB"
latency_p95_max = "20 ms"
memory_peak_max = "300 MiB"
"""


def prepare(folder: Path) -> Path:
    """Empty the folder, except for downloaded wheels of an earlier run, and return it.

    Raises:
        UsageError: it holds files, and no demo created it.
    """
    mark = folder / MARK
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise UsageError(
            str(folder),
            expected="a new or empty folder, or one of an earlier demo",
            got="a folder with other files",
            hint="choose another folder with --folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for path in folder.iterdir():
        if path == mark or path == folder / KEPT.parts[0]:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (folder / KEPT.parts[0]).glob("*"):
        if path != folder / KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder
