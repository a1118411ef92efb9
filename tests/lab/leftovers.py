"""Leftovers of a session of the lab: processes, mounts, network namespaces, bridges."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.lab.device import processes_in
from tests.lab.needs import tool

PATIENCE_S = 20.0


def left(scratch: Path, namespaces: Iterable[str]) -> list[str]:
    """Return what is left of a session, a line each; waits a moment for processes that are about to end.

    Args:
        scratch: the session's folder; a process that names it, or a mount below it, is the session's.
        namespaces: the process namespaces of its devices.
    """
    known = list(namespaces)

    def look() -> list[str]:
        processes = [f"process {line}" for line in (*processes_in(known), *_naming(scratch))]
        return [*processes, *(f"mount {line}" for line in _mounts(scratch))]

    return _after_a_while(look)


def left_on_network(prefix: str) -> list[str]:
    """Return the network namespaces and links whose names begin so.

    Sessions share these names: only the one that holds the network's lock may ask.
    """
    return _after_a_while(lambda: _network(prefix))


def _after_a_while(look: Callable[[], list[str]]) -> list[str]:
    deadline_s = time.monotonic() + PATIENCE_S
    while (leftover := look()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return leftover


def _naming(scratch: Path) -> list[str]:
    name = os.fsencode(scratch)
    processes = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command_line = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if name in command_line:
            processes.append(f"{entry.name} {command_line.split(bytes(1))[0].decode(errors='replace')}")
    return processes


def _mounts(scratch: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(str(scratch))]


def _network(prefix: str) -> list[str]:
    remaining = []
    for kind, argv in {"namespace": ["netns", "list"], "link": ["-brief", "link"]}.items():
        shown = subprocess.run([tool("ip"), *argv], capture_output=True, text=True, check=True).stdout
        names = [line.split()[0] for line in shown.splitlines()]
        remaining += [f"{kind} {name}" for name in names if name.startswith(prefix)]
    return remaining
