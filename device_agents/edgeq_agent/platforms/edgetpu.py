"""Detect an Edge TPU: its library, whether the library loads, and the connected accelerators."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

from edgeq_agent.platforms import sysfs
from edgeq_agent.platforms.base import Platform
from edgeq_agent.wire import Json

LIBRARY = "libedgetpu.so.1"
# The USB accelerator changes its id when its firmware is loaded.
_USB_IDS = {"1a6e:089a", "18d1:9302"}
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_LOAD_TIMEOUT_S = 20.0


class EdgeTpu(NamedTuple):
    """An Edge TPU, or a part of what it needs.

    Attributes:
        library: its path; None when there is none.
        problem: why the library does not load; None when it loads.
        devices: the connected accelerators.
    """

    library: str | None
    problem: str | None
    devices: tuple[str, ...]

    def to_json(self) -> Json:
        """Return it as the verb `probe` reports it."""
        return {
            "library": self.library,
            "loads": self.problem is None,
            "problem": self.problem,
            "devices": list(self.devices),
        }


def detect(platform: Platform) -> EdgeTpu | None:
    """Return what the device has of an Edge TPU; None without a library and without an accelerator.

    The library is loaded in a process of its own, so that a crash in it does not end the agent.
    """
    library = _library(platform)
    devices = _devices(platform.root)
    if library is None and not devices:
        return None
    problem = f"there is no {LIBRARY}" if library is None else _load_problem(library)
    return EdgeTpu(library and sysfs.absolute(platform.root, library), problem, tuple(devices))


def _library(platform: Platform) -> str | None:
    for folder in platform.library_folders():
        for path in sysfs.paths(platform.root, os.path.join(folder, LIBRARY)):
            return path
    return None


def _devices(root: str) -> list[str]:
    devices = [sysfs.absolute(root, path) for path in sysfs.paths(root, "dev/apex_*")]
    for path in sysfs.paths(root, "sys/bus/usb/devices/*/idVendor"):
        product = sysfs.read_text(os.path.join(os.path.dirname(path), "idProduct"))
        usb_id = f"{sysfs.read_text(path)}:{product}"
        if usb_id in _USB_IDS:
            devices.append("usb " + usb_id)
    return devices


def _load_problem(library: str) -> str | None:
    """Return why the library does not load; None when it loads."""
    try:
        process = subprocess.run(
            [sys.executable, "-I", "-c", _LOAD, library],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_LOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"does not load within {_LOAD_TIMEOUT_S:g} s"
    if process.returncode == 0:
        return None
    last_line = process.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return "".join(last_line)[:200] or f"exit status {process.returncode}"
