"""Files that survive a power cut: the content is synced first, then the name, then the folder."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from edgeq_agent import wire
from edgeq_agent.storage import disk, scratch

CHUNK_BYTES = 1024 * 1024


def remove(path: str) -> None:
    """Remove a file or link that may be gone already."""
    if os.path.lexists(path):
        disk.unlink(path)


def write_atomic(path: str, data: bytes, durable: bool = True, mode: int = 0o600) -> None:
    """Replace `path` by `data`: a reader sees the old content or the new.

    Args:
        durable: also after a power cut; without it the last writes may be lost or damaged by one.
        mode: who may read and run it; what the umask takes away is given back.
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
    """Replace `path` by a value's canonical JSON."""
    write_atomic(path, wire.canonical(value) + b"\n", durable)


def read_json(path: str) -> Any:
    """Return the value of a JSON file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds no JSON.
    """
    with open(path, "rb") as stream:
        return json.loads(stream.read().decode("utf-8"))


def replace_link(path: str, target: str) -> None:
    """Make the symlink `path` point to `target` in one step; there is always a link, the old or the new."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)  # left by a call that died here
    disk.symlink(target, temporary)
    try:
        disk.replace(temporary, path)
    except OSError:
        scratch.remove(temporary)
        raise
    disk.sync_folder(folder)


def sha256_of(path: str) -> str:
    """Return the file's SHA-256 as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)
