"""Identify a process by a token that stays unique when the system reuses its pid."""

from __future__ import annotations

import os

from edgeq_agent.storage import clock


def token() -> str:
    """Return this process's token: pid, start time and boot, without '-'."""
    return f"{os.getpid()}.{start_time(os.getpid())}.{_boot()}"


def alive(token: str) -> bool:
    """Return whether the process of a token still runs; one that the system hides counts as running."""
    parts = token.split(".")
    if not parts[0].isdigit():
        return False
    pid = int(parts[0])
    if len(parts) == 3:
        started = start_time(pid)
        if parts[2] != _boot() or (started != "0" and parts[1] not in ("0", started)):
            return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process: the pid was probably reused, but keeping files is safe
        return True
    return _fields(pid)[:1] != [b"Z"]  # a zombie has ended


def has_open(path: str) -> bool:
    """Return whether any process that this user can inspect has the file open."""
    target = os.stat(path)
    for descriptors in (f"/proc/{pid}/fd" for pid in _pids()):
        try:
            names = os.listdir(descriptors)
        except OSError:  # the process ended, or belongs to another user
            continue
        for name in names:
            try:
                if os.path.samestat(os.stat(os.path.join(descriptors, name)), target):
                    return True
            except OSError:  # closed in the meantime, or a pipe
                continue
    return False


def commands() -> list[str]:
    """Return the command lines of the processes that this user can inspect, words joined by NUL."""
    lines = []
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                lines.append(stream.read().decode("utf-8", "replace"))
        except OSError:  # the process ended
            continue
    return lines


def name_files(root: str) -> list[str]:
    """Return the files that hold the short names of the processes that this user can inspect."""
    folder = os.path.join(root, "proc")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name, "comm") for name in names if name.isdigit()]


def _pids() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def start_time(pid: int) -> str:
    """Return the process's start time in clock ticks since boot; "0" where the system hides it."""
    fields = _fields(pid)
    return fields[19].decode("ascii") if len(fields) > 19 else "0"


def _fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state (field 3) on; none where the system hides them."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            # The name before them is in parentheses and may contain anything.
            return stream.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    return clock.now().boot_id.replace("-", "")[:8]
