"""Unpacks wheels: plain zip files whose members are checked before one byte is written."""

from __future__ import annotations

import os
import zipfile
from typing import IO

from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.storage import disk

_SYMLINK = 0o120000
MAX_BYTES = 4 * 1024 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


def refuse(wheel: str, problem: str) -> AgentError:
    """Return the error for a wheel that is not unpacked."""
    return AgentError(UNSUPPORTED, wheel, problem, hint="build the runtime's wheels again")


def sizes(path: str, name: str) -> tuple[int, int]:
    """Return (bytes, files) that a wheel takes when it is unpacked.

    Raises:
        AgentError: EQ503, it is no zip file, or a member would land outside the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise refuse(name, f"no wheel: {error}") from error
    for member in members:
        _check(member, name)
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise refuse(name, f"unpacks to {total} bytes")
    return total, len(members)


def _check(member: zipfile.ZipInfo, name: str) -> None:
    parts = member.filename.split("/")
    absolute = member.filename.startswith("/") or "\\" in member.filename or ":" in parts[0]
    if absolute or ".." in parts:
        raise refuse(name, f"the member {member.filename!r} lies outside the wheel")
    if (member.external_attr >> 16) & 0o170000 == _SYMLINK:
        raise refuse(name, f"the member {member.filename!r} is a link")


def unpack(path: str, name: str, folder: str) -> None:
    """Unpack a wheel into a site-packages folder; `*.data/{purelib,platlib}` go to the same place.

    Scripts and headers are left out: nothing on the device runs them.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check(member, name)
            inside = _placed(member.filename.split("/"))
            if inside is None or member.filename.endswith("/"):
                continue
            target = os.path.join(folder, *inside)
            _make_folders(os.path.dirname(target))
            try:
                with archive.open(member) as source, disk.create(target) as sink:
                    size_bytes = _copy(source, sink)
            except (zipfile.BadZipFile, EOFError) as error:
                raise refuse(name, f"damaged: {error}") from error
            if size_bytes != member.file_size:
                raise refuse(name, f"damaged: {member.filename!r} is not as long as it says")


def _make_folders(path: str) -> None:
    # Not one by one durable, as disk.make_folders does: the runtime is synced as a whole.
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        disk.mkdir(path)


def _copy(source: IO[bytes], sink: disk.File) -> int:
    done = 0
    while True:
        chunk = source.read(_CHUNK_BYTES)
        if not chunk:
            return done
        sink.write(chunk)
        done += len(chunk)


def _placed(parts: list[str]) -> list[str] | None:
    if not parts[0].endswith(".data"):
        return parts
    return parts[2:] if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None
