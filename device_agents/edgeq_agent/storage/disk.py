"""The only module that changes files, so that tests can inject faults into every operation.

Two things change files elsewhere: `python -m venv`, which is another program, and SQLite, which writes the
outbox and has its own journal. Tests replace the `Disk`: theirs stops after any operation, loses what was not
synced, or fails as a full or broken disk does.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any, Callable, Iterator

_COPY_BYTES = 1024 * 1024


class File:
    """An open file; `descriptor` may be used for reading and locking, but writes go through this class."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of `data` at the file's position."""
        _active.perform("write", (self, data), lambda: _write_all(self.descriptor, data))

    def write_at(self, data: bytes | bytearray, start: int) -> None:
        """Write all of `data` at an offset; the file's position does not change."""
        _active.perform("write_at", (self, data, start), lambda: _write_all_at(self.descriptor, data, start))

    def truncate(self, size_bytes: int) -> None:
        """Truncate the file."""
        _active.perform("truncate", (self, size_bytes), lambda: os.ftruncate(self.descriptor, size_bytes))

    def sync(self) -> None:
        """Fsync the content; the file's name is durable only after `sync_folder`."""
        _active.perform("sync", (self,), lambda: os.fsync(self.descriptor))

    def close(self) -> None:
        """Close the file."""
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
        """Execute one operation that changes the file system; all of them pass through here."""
        return action()


_active = Disk()


@contextmanager
def use(other: Disk) -> Iterator[None]:
    """Execute the operations on another disk (for tests)."""
    global _active
    before, _active = _active, other
    try:
        yield
    finally:
        _active = before


def _open(operation: str, path: str, flags: int, mode: int) -> File:
    def action() -> File:
        return File(path, os.open(path, flags, mode))

    # Opening an existing file changes nothing, unless it is truncated.
    if not flags & os.O_TRUNC and os.path.exists(path):
        return action()
    opened: File = _active.perform(operation, (path,), action)
    return opened


def open_to_read(path: str) -> int:
    """Return a descriptor to read from; a named pipe without a writer does not block."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def create(path: str, mode: int = 0o600) -> File:
    """Open an empty file for writing; an existing one is truncated."""
    return _open("create", path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)


def append(path: str, mode: int = 0o600) -> File:
    """Open a file for reading and appending; create it when it is missing."""
    return _open("append", path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)


def update(path: str, mode: int = 0o600) -> File:
    """Open a file for reading and writing and keep its content; create it when it is missing."""
    return _open("update", path, os.O_RDWR | os.O_CREAT, mode)


def sync_folder(folder: str) -> None:
    """Fsync a folder: names that were created, renamed or removed in it become durable."""

    def action() -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _active.perform("sync_folder", (folder,), action)


def sync_all() -> None:
    """Sync all file systems."""
    _active.perform("sync_all", (), os.sync)


def replace(source: str, target: str) -> None:
    """Rename a file; it replaces `target` atomically."""
    _active.perform("replace", (source, target), lambda: os.replace(source, target))


def symlink(target: str, path: str) -> None:
    """Create the symbolic link `path` to `target`."""
    _active.perform("symlink", (target, path), lambda: os.symlink(target, path))


def link(source: str, path: str) -> None:
    """Create a hard link; fails when the name exists."""
    _active.perform("link", (source, path), lambda: os.link(source, path))


def unlink(path: str) -> None:
    """Remove a file or link."""
    _active.perform("unlink", (path,), lambda: os.unlink(path))


def mkdir(path: str, mode: int = 0o700) -> None:
    """Create a folder."""
    _active.perform("mkdir", (path,), lambda: os.mkdir(path, mode))


def rmdir(path: str) -> None:
    """Remove an empty folder."""
    _active.perform("rmdir", (path,), lambda: os.rmdir(path))


def chmod(path: str, mode: int) -> None:
    """Set a file's permissions."""
    _active.perform("chmod", (path, mode), lambda: os.chmod(path, mode))


def set_group(path: str, group_id: int) -> None:
    """Set a file's group."""
    _active.perform("set_group", (path, group_id), lambda: os.chown(path, -1, group_id))


def mark_used(path: str) -> None:
    """Set a file's modification time to now; the time orders files by their last use."""
    _active.perform("mark_used", (path,), lambda: os.utime(path))


def make_folders(path: str) -> None:
    """Create a folder and its missing parents; each name is durable before the next is created."""
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
    """Remove a folder and its content; links are removed, not followed."""
    with os.scandir(path) as entries:
        inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in inside:
        (remove_tree if is_folder else unlink)(os.path.join(path, name))
    rmdir(path)


def copy(source: str, target: str) -> None:
    """Copy a file's content and sync it; the name is durable only after `sync_folder`."""
    with open(source, "rb") as stream, create(target) as sink:
        while True:
            chunk = stream.read(_COPY_BYTES)
            if not chunk:
                break
            sink.write(chunk)
        sink.sync()
