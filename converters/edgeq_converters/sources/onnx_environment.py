"""The environment of onnx2tf: a folder of its own with the exact packages that it pins, made on first use.

onnx2tf pins versions of numpy, ONNX Runtime and LiteRT that edgeq's own environment cannot have.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeq_converters.errors import ConverterError

VERSION = "2.6.9"
# What onnx2tf's default path imports, in the versions that it pins; it pins more: OpenCV, pytest and others.
PACKAGES = (
    f"onnx2tf=={VERSION}",
    "ai-edge-litert==2.1.2",
    "flatbuffers==25.12.19",
    "markdown-it-py==4.3.0",
    "mdurl==0.1.2",
    "ml-dtypes==0.5.4",
    "numpy==2.2.6",
    "onnx==1.20.1",
    "onnxruntime==1.26.0",
    "onnxsim==0.6.5",
    "packaging==26.4",
    "protobuf==7.35.1",
    "psutil==5.9.5",
    "pygments==2.21.0",
    "rich==15.0.0",
    "sne4onnx==2.0.1",
    "sng4onnx==2.0.1",
    "tqdm==4.67.1",
    "typing-extensions==4.16.0",
)
SIZE = "350 MB"
_DEADLINE_S = 1800
_IMPORTS = "import onnx2tf.onnx2tf, onnx, onnxruntime, onnxsim"


def folder() -> Path:
    """Return where the environment is, or will be, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = "\n".join((sys.version, sys.base_prefix, *PACKAGES))
    return cache / "edgeq" / f"onnx2tf-{VERSION}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def python() -> Path | None:
    """Return the environment's Python; None where there is no environment yet."""
    path = folder() / "bin" / "python"
    # A link to an interpreter that has been uninstalled does not exist.
    return path if path.exists() else None


def made(announce: Callable[[str], object]) -> Path:
    """Return the environment's Python, and make the environment first if there is none.

    Args:
        announce: called with the name of a slow step before it starts.

    Raises:
        ConverterError: EQ336 it cannot be made.
    """
    present = python()
    if present is not None:
        return present
    target = folder()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.parent / ".onnx2tf.lock"):
            present = python()  # another process may have made it meanwhile
            if present is None:
                announce(f"install onnx2tf {VERSION} ({SIZE}, once)")
                _make(target)
    except OSError as error:
        raise _failure(f"{error.strerror or error}", hint=f"check the folder {target.parent}") from error
    return target / "bin" / "python"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _make(target: Path) -> None:
    """Build beside the target and rename at the end: an interrupted build leaves no half environment."""
    for left in target.parent.glob(".onnx2tf-*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else None
    scratch = Path(tempfile.mkdtemp(prefix=".onnx2tf-", dir=target.parent))
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(scratch)])
        inner = str(scratch / "bin" / "python")
        argv = [sys.executable, "-m", "pip", "--python", inner, "--disable-pip-version-check", "--no-input"]
        argv += ["install", "--quiet", "--progress-bar", "off", "--only-binary=:all:", "--no-deps"]
        # It states Python 3.12 and runs on 3.11 as well: none of its files needs a later syntax.
        _run([*argv, "--ignore-requires-python", *PACKAGES])
        _run([inner, "-I", "-c", _IMPORTS])
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(argv: list[str]) -> None:
    # The names of edgeq's own folders must not reach the new environment.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False, env=clean
        )
    except subprocess.TimeoutExpired as error:
        raise _failure(f"not done within {_DEADLINE_S} s") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _failure(_reason(lines, done.returncode))


def _reason(lines: list[str], status: int) -> str:
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    offline = any(sign in line for line in lines for sign in ("NewConnectionError", "Retrying (", "SSLError"))
    if offline and not any("No space left" in line for line in lines):
        return "the package index cannot be reached"
    if errors and not errors[-1].startswith("Exception"):  # whose cause is the end of a traceback
        return errors[-1][:200]
    return lines[-1][:200] if lines else f"exit status {status}"


def _failure(problem: str, *, hint: str | None = None) -> ConverterError:
    return ConverterError(
        "EQ336",
        f"onnx2tf {VERSION}",
        f"the environment of onnx2tf cannot be installed: {problem}",
        hint=hint
        or f"connect this machine to a package index once (pip's settings apply); it stays in {folder()}",
    )
