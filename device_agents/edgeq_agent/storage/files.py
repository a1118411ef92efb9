"""Write files that survive a power cut: sync the content, rename the file, sync the folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from typing import Any

from edgeq_agent import wire
from edgeq_agent.storage import disk, scratch

CHUNK_BYTES = 1024 * 1024
_LARGEST_BYTES = 64 * 1024 * 1024
# Opening fails with these where the name is taken by something else, or by another user's.
_NOT_A_FILE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO)


def remove(path: str) -> None:
    """Remove a file or link, if it exists."""
    if os.path.lexists(path):
        disk.unlink(path)


def write_atomic(path: str, data: bytes, durable: bool = True, mode: int = 0o600) -> None:
    """Replace a file's content atomically: a reader sees the old content or the new.

    Args:
        durable: sync the content and the name; without it a power cut may lose or damage the last writes.
        mode: the file's permissions, whatever the umask is.
    """
    temporary = scratch.beside(path)
    try:
        with disk.create(temporary) as stream:
            stream.write(data)
            if mode != 0o600:
                disk.chmod(temporary, mode)
            if durable:
                stream.sync()
        disk.replace(temporary, path)
    except BaseException:
        scratch.remove(temporary)
        raise
    if durable:
        disk.sync_folder(os.path.dirname(path))


def write_json(path: str, value: Any, durable: bool = True) -> None:
    """Replace a file's content by the canonical JSON of a value, atomically."""
    write_atomic(path, wire.canonical(value) + b"\n", durable)


def read_json(path: str) -> Any:
    """Return the value of a JSON file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a file of JSON that this user can read, or holds what JSON cannot say again.
    """
    text = read_small(path).decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        wire.canonical(value)  # refuses infinite numbers and broken characters, which no response can contain
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    return value


def read_small(path: str) -> bytes:
    """Return the content of a regular file of at most 64 MiB.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is something else, or this user cannot read it.
    """
    try:
        descriptor = disk.open_to_read(path)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        if status.st_size > _LARGEST_BYTES:
            raise ValueError(f"has {status.st_size} bytes")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(descriptor)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def replace_link(path: str, target: str) -> None:
    """Point the symlink `path` to `target` atomically: there is always a link, the old or the new."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)  # a call that died here left it
    disk.symlink(target, temporary)
    try:
        disk.replace(temporary, path)
    except OSError:
        scratch.remove(temporary)
        raise
    disk.sync_folder(folder)


def sha256_of(path: str) -> str:
    """Return a file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)
