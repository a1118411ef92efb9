"""The Edge TPU on this device: its library, whether that loads, and the accelerators that are connected."""

from __future__ import annotations

import glob
import os
import subprocess
import sys

from edgeq_agent.platforms.device import read_text
from edgeq_agent.wire import Json

LIBRARY = "libedgetpu.so.1"
_FOLDERS = ("lib", "lib/*-linux-gnu*", "usr/lib", "usr/lib/*-linux-gnu*", "usr/local/lib")
# Before and after its firmware was loaded.
_USB = {"1a6e:089a", "18d1:9302"}
_TRY = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_TRY_S = 20.0


def look(root: str = "/") -> Json | None:
    """Return {library, loads, problem, devices} of what of an Edge TPU is here; None: nothing at all.

    Whether the library loads is found by loading it, in a process of its own.
    """
    library = _library(root)
    devices = _devices(root)
    if library is None and not devices:
        return None
    problem = f"there is no {LIBRARY}" if library is None else _loads(library)
    return {
        "library": library and "/" + os.path.relpath(library, root),
        "loads": problem is None,
        "problem": problem,
        "devices": devices,
    }


def _library(root: str) -> str | None:
    for folder in _FOLDERS:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), folder, LIBRARY))):
            return path
    return None


def _devices(root: str) -> list[str]:
    found = ["/" + os.path.relpath(path, root) for path in sorted(_glob(root, "dev/apex_*"))]
    for path in sorted(_glob(root, "sys/bus/usb/devices/*/idVendor")):
        folder = os.path.dirname(path)
        product = read_text(os.path.join(folder, "idProduct"))
        name = f"{read_text(path)}:{product}"
        if name in _USB:
            found.append("usb " + name)
    return found


def _glob(root: str, pattern: str) -> list[str]:
    return glob.glob(os.path.join(glob.escape(root), pattern))


def _loads(library: str) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRY, library],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TRY_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"does not load within {_TRY_S:g} s"
    if done.returncode == 0:
        return None
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return "".join(last)[:200] or f"exit status {done.returncode}"
