"""The one seam to the file system: every call of the agent that changes a file goes through here.

Two things change files elsewhere: `python -m venv` (another program) and SQLite, which keeps the outbox and
has a journal of its own. Tests put another `Disk` in the place of the real one: it stops after any
operation, loses what was not synced, or refuses as a full or broken disk does.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any, Callable, Iterator

_COPY_BYTES = 1024 * 1024


class File:
    """An open file; `descriptor` may be read and locked, never written past this class."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of `data` at the file's position."""
        _active.perform("write", (self, data), lambda: _write_all(self.descriptor, data))

    def write_at(self, data: bytes | bytearray, start: int) -> None:
        """Write all of `data` from a place of the file on; its position stays."""
        _active.perform("write_at", (self, data, start), lambda: _write_all_at(self.descriptor, data, start))

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to a size."""
        _active.perform("truncate", (self, size_bytes), lambda: os.ftruncate(self.descriptor, size_bytes))

    def sync(self) -> None:
        """Make the content durable; the name is durable after `sync_folder`."""
        _active.perform("sync", (self,), lambda: os.fsync(self.descriptor))

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _write_all_at(descriptor: int, data: bytes | bytearray, start: int) -> None:
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += os.pwrite(descriptor, rest[done:], start + done)


class Disk:
    """The real file system."""

    def perform(self, operation: str, arguments: tuple[Any, ...], action: Callable[[], Any]) -> Any:
        """Do one operation that changes something; the only place where one is done."""
        return action()


_active = Disk()


@contextmanager
def use(other: Disk) -> Iterator[None]:
    """Let another disk perform the operations (tests)."""
    global _active
    before, _active = _active, other
    try:
        yield
    finally:
        _active = before


def _opened(operation: str, path: str, flags: int, mode: int) -> File:
    def action() -> File:
        return File(path, os.open(path, flags, mode))

    # Opening what is there changes nothing, unless it is emptied.
    if not flags & os.O_TRUNC and os.path.exists(path):
        return action()
    opened: File = _active.perform(operation, (path,), action)
    return opened


def create(path: str, mode: int = 0o600) -> File:
    """Open an empty file for writing; what was there under the name is emptied."""
    return _opened("create", path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)


def append(path: str, mode: int = 0o600) -> File:
    """Open a file for reading, and for writing at its end; it is made when it is not there."""
    return _opened("append", path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)


def update(path: str, mode: int = 0o600) -> File:
    """Open a file for reading and writing, its content kept; it is made when it is not there."""
    return _opened("update", path, os.O_RDWR | os.O_CREAT, mode)


def sync_folder(folder: str) -> None:
    """Make the names inside `folder` durable: what was created, renamed and removed there."""

    def action() -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _active.perform("sync_folder", (folder,), action)


def sync_all() -> None:
    """Make everything durable, on all file systems."""
    _active.perform("sync_all", (), os.sync)


def replace(source: str, target: str) -> None:
    """Rename; what has the name `target` is replaced in the same step."""
    _active.perform("replace", (source, target), lambda: os.replace(source, target))


def symlink(target: str, path: str) -> None:
    """Make the symbolic link `path` point to `target`."""
    _active.perform("symlink", (target, path), lambda: os.symlink(target, path))


def link(source: str, path: str) -> None:
    """Give a file a second name; fails where the name is taken."""
    _active.perform("link", (source, path), lambda: os.link(source, path))


def unlink(path: str) -> None:
    """Remove the name of a file or link."""
    _active.perform("unlink", (path,), lambda: os.unlink(path))


def mkdir(path: str, mode: int = 0o700) -> None:
    """Make a folder."""
    _active.perform("mkdir", (path,), lambda: os.mkdir(path, mode))


def rmdir(path: str) -> None:
    """Remove an empty folder."""
    _active.perform("rmdir", (path,), lambda: os.rmdir(path))


def chmod(path: str, mode: int) -> None:
    """Change who may do what with a file."""
    _active.perform("chmod", (path, mode), lambda: os.chmod(path, mode))


def mark_used(path: str) -> None:
    """Note that a file was used just now."""
    _active.perform("mark_used", (path,), lambda: os.utime(path))


def make_folders(path: str) -> None:
    """Make a folder and those above it where they are missing, each name durable before the next."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_folders(above)
    try:
        mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    sync_folder(above)


def remove_tree(path: str) -> None:
    """Remove a folder with everything in it; links are removed, not followed."""
    with os.scandir(path) as entries:
        inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in inside:
        (remove_tree if is_folder else unlink)(os.path.join(path, name))
    rmdir(path)


def copy(source: str, target: str) -> None:
    """Copy a file's content, synced; the name is durable after `sync_folder`."""
    with open(source, "rb") as stream, create(target) as sink:
        while True:
            chunk = stream.read(_COPY_BYTES)
            if not chunk:
                break
            sink.write(chunk)
        sink.sync()
