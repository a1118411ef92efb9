"""Read the small text files of /sys and /proc below any root, so that tests can use recorded trees."""

from __future__ import annotations

import glob
import os

_MAX_BYTES = 65536


def read_text(path: str) -> str | None:
    """Return a file's text without padding, or None when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_MAX_BYTES).decode("utf-8", "replace").strip("\x00 \t\r\n")
    except OSError:
        return None


def read_integer(path: str) -> int | None:
    """Return the integer that a file holds, or None when it cannot be read or holds something else."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def read_line(path: str, key: str) -> str | None:
    """Return what follows `key` on the line that begins with it ("MemTotal:" of /proc/meminfo), or None."""
    for line in (read_text(path) or "").splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return None


def paths(root: str, pattern: str) -> list[str]:
    """Return the sorted paths below `root` that match a glob pattern."""
    return sorted(glob.glob(os.path.join(glob.escape(root), pattern)))


def absolute(root: str, path: str) -> str:
    """Return a path below `root` as it is on the device, for messages."""
    return "/" + os.path.relpath(path, root)


def names(folder: str) -> list[str]:
    """Return the names in a folder; none when it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
