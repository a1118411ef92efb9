"""Write files atomically, hash them, and expand their names."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the content of `path` atomically and durably (fsync of file and folder).

    Args:
        path: the file; its folder is created if it is missing. A device such as /dev/null is written to.
        data: the new content.
        mode: the permissions of the file.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    try:
        _write_atomic(path, data, mode)
    except OSError as error:
        # The error names the temporary file or nothing; the user knows only `path`.
        error.filename, error.filename2 = str(path), None
        raise


def exists(path: Path) -> bool:
    """Return whether there is a file or folder; a name that no file can have is none."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False


def obstacle(path: Path) -> str | None:
    """Return in words why `write_atomic` could not write a file; None where it could.

    A temporary file is created beside it and removed: permissions alone do not say whether a disk is
    read-only. Nothing is created for a folder that is missing.
    """
    try:
        if path.is_dir():
            return "it is a folder"
        if path.exists() and not os.access(path, os.W_OK):
            return "it is read-only"
        near = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:  # a name that is too long, for example
        return str(error.strerror)
    if not near.is_dir():
        return f"no file can be created in {near}: it is not a folder"
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=near)
    except OSError as error:
        return f"no file can be created in {near}: {error.strerror}"
    os.close(descriptor)
    Path(temporary).unlink()
    return None


def _write_atomic(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_char_device() or path.is_fifo():  # root could replace it by a file
        path.write_bytes(data)
        return
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def expand_user(path: Path | str) -> Path:
    """Return a path with `~` expanded; `~` of a user that does not exist stays, so that no file is there."""
    return Path(os.path.expanduser(path))


def sync_folder(folder: Path) -> None:
    """Fsync `folder`, so that a rename inside it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
