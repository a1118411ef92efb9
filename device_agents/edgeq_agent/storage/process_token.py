"""Which process made something: a token that no later process has, also when its number is given again."""

from __future__ import annotations

import os

from edgeq_agent.storage import clock


def token() -> str:
    """Return this process's token: number, start time and boot, without '-'."""
    return f"{os.getpid()}.{_started(os.getpid())}.{_boot()}"


def alive(mark: str) -> bool:
    """Tell whether the process of a token still runs; when the system hides it, it counts as running."""
    parts = mark.split(".")
    if not parts[0].isdigit():
        return False
    pid = int(parts[0])
    if len(parts) == 3:
        started = _started(pid)
        if parts[2] != _boot() or (started != "0" and parts[1] not in ("0", started)):
            return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's: the number was given again, but better keep than break
        return True
    return _fields(pid)[:1] != [b"Z"]  # a zombie only waits to be counted


def has_open(path: str) -> bool:
    """Tell whether any process that we may look at has the file open."""
    wanted = os.stat(path)
    for descriptors in (f"/proc/{pid}/fd" for pid in _pids()):
        try:
            names = os.listdir(descriptors)
        except OSError:  # it ended, or is another user's
            continue
        for name in names:
            try:
                if os.path.samestat(os.stat(os.path.join(descriptors, name)), wanted):
                    return True
            except OSError:  # closed meanwhile, or a pipe
                continue
    return False


def commands() -> list[str]:
    """Return the command lines of the processes that we may look at, words joined by NUL."""
    found = []
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                found.append(stream.read().decode("utf-8", "replace"))
        except OSError:  # it ended
            continue
    return found


def name_files(root: str) -> list[str]:
    """Return the files that hold the short names of the processes that we may look at."""
    folder = os.path.join(root, "proc")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name, "comm") for name in names if name.isdigit()]


def _pids() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _started(pid: int) -> str:
    """Return the process's start in clock ticks since boot, or "0" where the system hides it."""
    fields = _fields(pid)
    return fields[19].decode("ascii") if len(fields) > 19 else "0"


def _fields(pid: int) -> list[bytes]:
    """Return the fields of proc(5) from the state (field 3) on; none where the system hides them."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            # After the name, which may hold anything, in parentheses.
            return stream.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    return clock.now().boot_id.replace("-", "")[:8]
