"""Where a converted model may be written, told before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from edgeq.errors import UsageError
from edgeq_converters.errors import ConverterError


def check_paths(source: Path, output: Path) -> None:
    """Check that the output is not the source.

    Raises:
        UsageError: it is.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise UsageError(str(output), "the output would replace the source", hint="give another -o")


def require_writable(output: Path) -> None:
    """Check that the output can be written, or its folder made.

    Raises:
        ConverterError: EQ311.
    """
    if output.is_dir():
        raise unwritable(output, "it is a folder")
    near = next(parent for parent in output.absolute().parents if parent.exists())
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        raise unwritable(output, f"no file can be made in {near}")


def unwritable(output: Path, why: str) -> ConverterError:
    """Return the error for an output that cannot be written."""
    return ConverterError("EQ311", str(output), f"cannot be written: {why}", hint="give another -o")
