"""Unpack wheels: zip files whose members are all checked before the first byte is written."""

from __future__ import annotations

import os
import zipfile

from edgeq_agent.blobs import zip_file
from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.storage import disk

_FILE_TYPE = 0o170000
_SYMLINK = 0o120000
_LONGEST_NAME_BYTES = 255
MAX_BYTES = 4 * 1024 * 1024 * 1024


def _refuse(wheel: str, problem: str) -> AgentError:
    return AgentError(UNSUPPORTED, wheel, problem, hint="build the runtime's wheels again")


def unpacked_size(path: str, name: str) -> tuple[int, int]:
    """Return (bytes, files) that a wheel takes when unpacked.

    Raises:
        AgentError: EQ503, it is not a zip file, is too large, or has a member outside its folder.
    """
    try:
        with zip_file.opened(path) as archive:
            members = archive.infolist()
    except (zip_file.ZipDamaged, OSError) as error:
        raise _refuse(name, f"not a wheel: {error}") from error
    for member in members:
        _check(member, name)
    _check_places(members, name)
    size_bytes = sum(member.file_size for member in members)
    if size_bytes > MAX_BYTES:
        raise _refuse(name, f"unpacks to {size_bytes} bytes")
    return size_bytes, len(members)


def _check(member: zipfile.ZipInfo, name: str) -> None:
    parts = member.filename.split("/")
    absolute = member.filename.startswith("/") or "\\" in member.filename or ":" in parts[0]
    if absolute or ".." in parts:
        raise _refuse(name, f"the member {member.filename!r} lies outside the wheel")
    if (member.external_attr >> 16) & _FILE_TYPE == _SYMLINK:
        raise _refuse(name, f"the member {member.filename!r} is a link")


def _check_places(members: list[zipfile.ZipInfo], name: str) -> None:
    """Refuse members of one place, and a file where another member needs a folder."""
    files = [member.filename for member in members if not member.filename.endswith("/")]
    folders: set[str] = set()
    for file in files:
        parts = file.split("/")
        folders.update("/".join(parts[:length]) for length in range(1, len(parts)))
        if any(part in ("", ".") or len(part.encode("utf-8")) > _LONGEST_NAME_BYTES for part in parts):
            raise _refuse(name, f"the member {file[:100]!r} has a name that is not allowed")
    if len(set(files)) < len(files) or folders & set(files):
        raise _refuse(name, "two of its members have the same place")


def unpack(path: str, name: str, folder: str) -> None:
    """Unpack a wheel into a site-packages folder, including `*.data/{purelib,platlib}`.

    Scripts and headers are left out: nothing on the device runs them.

    Raises:
        AgentError: EQ503, the wheel is damaged.
    """
    try:
        with zip_file.opened(path) as archive:
            for member in archive.infolist():
                _check(member, name)
                parts = _site_path(member.filename.split("/"))
                if parts is None or member.filename.endswith("/"):
                    continue
                target = os.path.join(folder, *parts)
                _make_folders(os.path.dirname(target))
                with disk.create(target) as sink:
                    for chunk in zip_file.chunks(archive, member):
                        sink.write(chunk)
    except zip_file.ZipDamaged as error:
        raise _refuse(name, f"damaged: {error}") from error


def _make_folders(path: str) -> None:
    # Without a sync for each, unlike disk.make_folders: the runtime is synced as a whole.
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        disk.mkdir(path)


def _site_path(parts: list[str]) -> list[str] | None:
    """Return where a member goes inside site-packages; None when it is left out."""
    if not parts[0].endswith(".data"):
        return parts
    return parts[2:] if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None
