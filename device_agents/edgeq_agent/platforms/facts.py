"""What the device is: interpreter, C library, memory, board; everything the host needs to resolve wheels."""

from __future__ import annotations

import importlib.util
import os
import re
import struct
import sys

from edgeq_agent.platforms import device, edgetpu
from edgeq_agent.wire import RUNTIME_MODULES, Json


def read(root: str = "/") -> Json:
    """Return the facts; `root` is where the system's files are looked up."""
    system = os.uname()
    return {
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        # The kernel's machine; a 32-bit system on a 64-bit kernel is told apart by pointer_bits.
        "machine": system.machine,
        "system": system.sysname,
        "libc": libc(root),
        "pointer_bits": struct.calcsize("P") * 8,
        "packages": packages(),
        "modules": modules(),
        "memory_bytes": memory_bytes(root),
        "cpu_count": os.cpu_count() or 1,
        "model": device.board_model(root),
        "kind": device.kind(root),
        "mendel": device.mendel_version(root),
        "edgetpu": edgetpu.look(root),
    }


def libc(root: str = "/") -> Json:
    """Return the C library's name and version; a version that it does not tell is null."""
    try:
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):  # musl and bionic have no such name
        words = []
    if len(words) == 2:
        return {"name": words[0], "version": words[1]}
    if os.path.exists(os.path.join(root, "system/lib64/libc.so")) or hasattr(sys, "getandroidapilevel"):
        return {"name": "bionic", "version": None}
    if any(name.startswith("ld-musl") for name in _names(os.path.join(root, "lib"))):
        return {"name": "musl", "version": None}
    return {"name": "unknown", "version": None}


def packages() -> Json:
    """Return the version of what this Python has itself and a runtime can use: numpy, or nothing.

    Read from the folder of installed packages and not imported: that takes a second on a small board, and
    whether it works is seen when the runtime is proved.
    """
    spec = importlib.util.find_spec("numpy")
    if spec is None or not spec.origin:
        return {}
    for name in _names(os.path.dirname(os.path.dirname(spec.origin))):
        found = re.match(r"numpy-([0-9][0-9a-z.]*?)(-py.*)?\.(dist|egg)-info$", name)
        if found:
            return {"numpy": found.group(1)}
    return {}


def modules() -> list[str]:
    """Return which runtimes this Python has itself; found, not imported."""
    return [name for name in RUNTIME_MODULES if importlib.util.find_spec(name) is not None]


def memory_bytes(root: str = "/") -> int | None:
    """Return the installed memory, or None when the system does not tell."""
    text = device.read_text(os.path.join(root, "proc/meminfo")) or ""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
