"""Open windows on disk: what a killed process had counted and not stored becomes a window of its own.

Each runtime keeps one file, `open-windows/<process token>-<number>.json`, and replaces it once a second
while calls come: the counts of its open windows, without their histograms. Where the process has ended
without removing it, its windows go into the outbox, marked as interrupted: the calls that they count are
`unrecorded`. A window that has begun and is in no file becomes an empty one, marked as lost.
"""

from __future__ import annotations

import os
from typing import Sequence

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.storage import damage, disk, files, process_token, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry.outbox import OpenWindow, Outbox
from edgeq_agent.telemetry.window import WindowError, parse_unnumbered, to_json

SCHEMA = "edgeq.open-windows/1"


def path_of(home: Home, name: str) -> str:
    """Return the path of a runtime's file."""
    return os.path.join(home.open_windows, name + ".json")


def write(home: Home, name: str, windows: Sequence[OpenWindow]) -> None:
    """Replace a runtime's file and sync it; without windows it is removed.

    Raises:
        OSError: the disk refuses.
    """
    if not windows:
        files.remove(path_of(home, name))
        return
    disk.make_folders(home.open_windows)
    entries = [
        {"model": each.model, "release": each.release, "mark": each.mark, "window": to_json(each.window)}
        for each in windows
    ]
    files.write_json(path_of(home, name), {"schema": SCHEMA, "windows": entries})


def recover(home: Home, box: Outbox) -> int:
    """Store the open windows of processes that have ended; return how many there were.

    Raises:
        OSError: the disk refuses.
    """
    # Before the files are read: the file of a process that ends meanwhile is left for the next call.
    ended = [mark for mark in box.begun() if not _alive(mark)]
    stored = 0
    for name in _finished(home.open_windows):
        if _alive(name):
            continue
        path = os.path.join(home.open_windows, name)
        try:
            windows = _parse(files.read_json(path))
        except FileNotFoundError:  # another process was faster
            continue
        except (ValueError, AgentError) as error:
            lost = "the counts of a killed process are lost"
            damage.set_aside(home, path, f"is damaged: {error}"[:300], lost)
            continue
        for each in windows:
            stored += box.append_once(each)
        files.remove(path)
    return stored + (box.lose(ended) if ended else 0)


def _finished(folder: str) -> list[str]:
    """Return the names of the files, without those that a process is still writing."""
    if not os.path.isdir(folder):
        return []
    scratch.sweep_beside(folder)
    names = sorted(os.listdir(folder))
    return [name for name in names if name.endswith(".json") and scratch.beside_owner(name) is None]


def _alive(name: str) -> bool:
    """Return whether the process runs that a file or a mark is called after."""
    return process_token.alive(name.partition("-")[0])


def _parse(body: object) -> list[OpenWindow]:
    fields = Fields(body)
    fields.one_of("schema", (SCHEMA,))

    def entry(items: Fields, name: str) -> OpenWindow:
        each = items.object(name)
        try:
            window = parse_unnumbered(each.raw("window"))
        except WindowError as error:
            raise each.refuse("window", str(error)) from error
        return OpenWindow(each.model_name(), each.file_name("release"), each.text("mark"), window)

    return fields.list_of("windows", entry)
