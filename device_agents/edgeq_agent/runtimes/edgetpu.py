"""The Edge TPU: whether a model was compiled for it, its library as a delegate, and what of it is here.

See coral.ai's "Run inference on the Edge TPU with Python": the runtime's `load_delegate("libedgetpu.so.1")`.
"""

from __future__ import annotations

import glob
import importlib
import os
import subprocess
import sys
from typing import Any

from edgeq_agent.errors import EDGETPU_MISSING, AgentError
from edgeq_agent.platforms.device import read_text
from edgeq_agent.wire import Json

LIBRARY = "libedgetpu.so.1"
KERNELS = "edgetpu"
# The one operation that edgetpu_compiler makes of all that it took.
_OPERATION = b"edgetpu-custom-op"
_CHUNK_BYTES = 1024 * 1024
_LOADERS = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "load_delegate"),
    "tflite_runtime": ("tflite_runtime.interpreter", "load_delegate"),
    "tensorflow": ("tensorflow.lite.experimental", "load_delegate"),
}
_FOLDERS = ("lib", "lib/*-linux-gnu*", "usr/lib", "usr/lib/*-linux-gnu*", "usr/local/lib")
# Before and after its firmware was loaded.
_USB = {"1a6e:089a", "18d1:9302"}
_TRY = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_TRY_S = 20.0


def needed(path: str) -> bool:
    """Tell whether a model file was compiled for the Edge TPU."""
    rest = b""
    with open(path, "rb") as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            if _OPERATION in rest + chunk:
                return True
            if not chunk:
                return False
            rest = chunk[-len(_OPERATION) :]


def delegate(module: str) -> Any:
    """Return the library as a delegate of a runtime (child process only).

    Raises:
        AgentError: EQ560, it does not load, or finds no accelerator.
    """
    place, name = _LOADERS[module]
    try:
        return getattr(importlib.import_module(place), name)(LIBRARY)
    except (ValueError, OSError, RuntimeError, AttributeError) as error:
        # The runtime's own message is empty where the library finds no device.
        why = " ".join(str(error).split())[:200] or "it finds no accelerator"
        raise AgentError(
            EDGETPU_MISSING,
            "model",
            f"it was compiled for the Edge TPU, and {LIBRARY} is no delegate here: {why}",
            hint="install libedgetpu on the device and plug the accelerator in; or deploy the model that was "
            "not compiled",
        ) from error


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
