"""Read zip files that arrive from elsewhere: stored and deflated members alone, one error for all damage."""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import Iterator

_CHUNK_BYTES = 1024 * 1024
_ENCRYPTED = 0x1
# What zipfile raises for bytes that are not a sound zip, depending on where they are wrong.
_DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, ValueError,
    LookupError, OverflowError, struct.error, zlib.error,
)  # fmt: skip


class ZipDamaged(Exception):
    """A file is not a zip, is damaged, or uses what is not supported."""


@contextmanager
def opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose members are all stored or deflated, and not encrypted.

    Raises:
        ZipDamaged: it is not such a zip.
        OSError: the file cannot be read.
    """
    with _one_error_for_damage():
        archive = zipfile.ZipFile(path)
    with archive:
        for member in archive.infolist():
            if member.flag_bits & _ENCRYPTED:
                raise ZipDamaged(f"the member {member.filename!r} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ZipDamaged(f"the member {member.filename!r} is neither stored nor deflated")
        yield archive


def chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a member's bytes in pieces, no more than it states.

    Raises:
        ZipDamaged: it is damaged, or shorter than it states.
    """
    size_bytes = 0
    with _one_error_for_damage():
        stream = archive.open(member)
    with stream:
        while True:
            with _one_error_for_damage():
                chunk = stream.read(_CHUNK_BYTES)
            if not chunk:
                break
            size_bytes += len(chunk)
            yield chunk
    if size_bytes != member.file_size:
        raise ZipDamaged(f"{member.filename!r} has another length than it states")


@contextmanager
def _one_error_for_damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ZipDamaged(" ".join(str(error).split())[:200] or type(error).__name__) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ZipDamaged("a place before its beginning") from error
