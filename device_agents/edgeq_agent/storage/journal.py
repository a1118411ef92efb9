"""The journal: one JSON line for each change of state, appended and synced, never rewritten."""

from __future__ import annotations

import json
import os
from typing import Any

from edgeq_agent import wire
from edgeq_agent.storage import clock, disk
from edgeq_agent.storage.home import Home

MAX_BYTES = 1024 * 1024
_TAIL_BYTES = 64 * 1024


def append(home: Home, event: str, **details: Any) -> None:
    """Add one entry; after MAX_BYTES the journal becomes `journal.1` and a new one begins."""
    entry = dict(details, event=event, time_ns=clock.wall_ns(), boot_id=clock.now().boot_id)
    data = wire.dump(entry)
    fresh = not os.path.exists(home.journal)
    if not fresh and os.path.getsize(home.journal) > MAX_BYTES:
        disk.replace(home.journal, home.journal + ".1")
        fresh = True
    with disk.append(home.journal) as journal:
        # A line that a power cut left half-written must not swallow this one.
        size = os.fstat(journal.descriptor).st_size
        if size and os.pread(journal.descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        journal.write(data)
        journal.sync()
    if fresh:
        disk.sync_folder(home.root)


def note(home: Home, event: str, **details: Any) -> wire.Json:
    """Add one entry about something that is done and durable; return what an answer says of a failure.

    The thing counts and the journal tells of it: a disk that refuses the line does not undo the thing.
    """
    try:
        append(home, event, **details)
    except OSError as error:
        return {"journal_problem": f"{event} is not in the journal: {error.strerror}"}
    return {}


def tail(home: Home, count: int) -> list[wire.Json]:
    """Return the last entries, oldest first; lines that are no entries are left out."""
    try:
        with open(home.journal, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().split(b"\n")
    except FileNotFoundError:
        return []
    entries = [_entry(line) for line in lines]
    return [entry for entry in entries if entry][-count:]


def _entry(line: bytes) -> wire.Json:
    try:
        value = json.loads(line.decode("utf-8"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
