"""The journal: an append-only file with one synced JSON line for each change of state."""

from __future__ import annotations

import json
import os
from typing import Any

from edgeq_agent import wire
from edgeq_agent.storage import clock, disk, files
from edgeq_agent.storage.home import Home

MAX_BYTES = 1024 * 1024
_TAIL_BYTES = 64 * 1024


def append(home: Home, event: str, **details: Any) -> None:
    """Add an entry; when the journal exceeds MAX_BYTES, it becomes `journal.1` and a new one is created."""
    entry = dict(details, event=event, time_ns=clock.wall_ns(), boot_id=clock.now().boot_id)
    data = wire.dump(entry)
    fresh = not os.path.exists(home.journal)
    if not fresh and os.path.getsize(home.journal) > MAX_BYTES:
        disk.replace(home.journal, home.journal + ".1")
        fresh = True
    with disk.append(home.journal) as journal:
        # This entry must not become part of a line that a power cut left incomplete.
        size = os.fstat(journal.descriptor).st_size
        if size and os.pread(journal.descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        journal.write(data)
        journal.sync()
    if fresh:
        disk.sync_folder(home.root)


def note(home: Home, event: str, **details: Any) -> dict[str, str]:
    """Add an entry about a change that is already durable; return {journal_problem} when that fails.

    The change stands even when the disk refuses the entry, so the failure becomes a part of the response.
    """
    try:
        append(home, event, **details)
    except OSError as error:
        return {"journal_problem": f"{event} is not in the journal: {error.strerror}"}
    return {}


def tail(home: Home, count: int) -> list[wire.Json]:
    """Return the last entries, oldest first; damaged lines are skipped."""
    try:
        with open(home.journal, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().split(b"\n")
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # the next verb sets it aside
        return []
    return _entries(lines)[-count:]


def everything(home: Home) -> list[wire.Json]:
    """Return all entries that are kept, oldest first; damaged lines are skipped."""
    entries = []
    for path in (home.journal + ".1", home.journal):
        try:
            entries += _entries(files.read_small(path).split(b"\n"))
        except (FileNotFoundError, ValueError):
            continue
    return entries


def _entries(lines: list[bytes]) -> list[wire.Json]:
    return [entry for entry in map(_entry, lines) if entry]


def _entry(line: bytes) -> wire.Json:
    try:
        value = json.loads(line.decode("utf-8"))
        wire.canonical(value)  # damage may have made a number that no response can contain
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
