"""The device's id: a random number that the first call makes and every later call reads."""

from __future__ import annotations

import uuid

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home


def device_id(home: Home) -> str:
    """Return the id of this home; the first call creates it."""
    try:
        return stored_id(home)
    except (FileNotFoundError, ValueError):
        return create(home)


def stored_id(home: Home) -> str:
    """Return the id that the file has.

    Raises:
        FileNotFoundError, ValueError: there is none.
    """
    try:
        return Fields(files.read_json(home.device)).text("device_id")
    except AgentError as error:
        raise ValueError("has no device id") from error


def create(home: Home, known: str | None = None) -> str:
    """Write the file, and return the id in it.

    Args:
        known: the id to write; default: a new one. Where another process is first, its id stays.
    """
    temporary = scratch.path(home, "device.json")
    try:
        files.write_json(temporary, {"schema": "edgeq.device/1", "device_id": known or uuid.uuid4().hex})
        _publish(home, temporary)
    finally:
        files.remove(temporary)
    disk.sync_folder(home.root)
    return stored_id(home)


def _publish(home: Home, temporary: str) -> None:
    try:
        # A hard link fails where a rename overwrites: of two concurrent first calls, one sets the id.
        disk.link(temporary, home.device)
    except FileExistsError:
        if not _is_readable(home):
            disk.replace(temporary, home.device)
    except OSError:  # a file system without hard links (Android's sdcard)
        disk.replace(temporary, home.device)


def _is_readable(home: Home) -> bool:
    try:
        return bool(stored_id(home))
    except ValueError:
        return False
