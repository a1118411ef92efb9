"""Logs of JSON lines: bounded, appended without a sync, and read from a cursor.

A log that cannot be written must not fail what it is about, so a failure is returned and not raised.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeq_agent import wire
from edgeq_agent.storage import clock, disk, files

MAX_BYTES = 512 * 1024
LONGEST_TEXT = 8000


class Part(NamedTuple):
    """The lines of a log after a cursor, and the cursor after them."""

    lines: list[bytes]
    cursor: str


def append(path: str, text: str) -> str:
    """Add an entry with the time and a text; return why that failed, or "".

    A log over MAX_BYTES becomes `<path>.1`, and a new one is created.
    """
    entry = wire.dump({"time_ns": clock.wall_ns(), "text": text[-LONGEST_TEXT:]})
    if os.path.lexists(path) and not os.path.isfile(path):  # writing into a named pipe would block
        return f"{os.path.basename(path)}: not a file"
    try:
        if os.path.lexists(path) and os.path.getsize(path) > MAX_BYTES:
            disk.replace(path, path + ".1")
        with disk.append(path) as log:
            log.write(entry)
    except OSError as error:
        return f"{os.path.basename(path)}: {error.strerror}"
    return ""


def read(path: str, cursor: str = "") -> Part:
    """Return the complete lines of a log and of the one before it, oldest first.

    Args:
        cursor: of an earlier read: only what was added since.

    Raises:
        ValueError: it is not a file that this user can read.
    """
    inode, offset = _parse(cursor)
    older, current = _content(path + ".1"), _content(path)
    if current is None:
        return Part([], "")
    end = current.data.rfind(b"\n") + 1  # what follows is being written
    after = f"{current.inode}:{end}"
    if current.inode == inode and offset <= end:
        return Part(current.data[offset:end].splitlines(), after)
    before = b""
    if older is not None:
        before = older.data[offset if older.inode == inode else 0 :]
    return Part((before + b"\n" + current.data[:end]).splitlines(), after)


class _Content(NamedTuple):
    inode: int
    data: bytes


def _content(path: str) -> _Content | None:
    try:
        # In this order: a log that is renamed between the two is read again, not lost.
        inode = os.stat(path).st_ino
        return _Content(inode, files.read_small(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _parse(cursor: str) -> tuple[int, int]:
    inode, _, offset = cursor.partition(":")
    known = inode.isdecimal() and offset.isdecimal() and len(cursor) < 60
    return (int(inode), int(offset)) if known else (0, 0)
