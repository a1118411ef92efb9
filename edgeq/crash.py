"""Turn an unexpected exception into an error: a disk failure keeps its cause, a bug gets a log file."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path

from edgeq.errors import DiskRefused, EdgeqError, InternalError
from edgeq.text import several_lines

# Not a bug: the disk is full, read-only or failing, or a permission is missing.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
# Nor is a name that the user gave and no file can have, or too many open files.
_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EBUSY, errno.ENXIO, errno.ETXTBSY}
    | {errno.EMFILE, errno.ENFILE}
)
_SHOWN_CHARACTERS = 200
_SUMMARY_CHARACTERS = 300


def unexpected(error: Exception, *, subject: str = "edgeq", device: str | None = None) -> EdgeqError:
    """Return the error that stands for an exception that no code expected.

    Args:
        subject: what failed, as the message names it.
        device: the device on which it happened; names the log file, so that each device has its own.
    """
    if isinstance(error, EdgeqError):
        return error
    return _disk_error(error) or _bug(error, subject, device)


def _disk_error(error: Exception) -> DiskRefused | None:
    if not isinstance(error, OSError) or error.errno not in _DISK | _NAME:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    subject = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else "disk"
    hint = "free disk space there, then run the same command again" if full else None
    return DiskRefused(
        str(subject)[:_SHOWN_CHARACTERS], f"cannot be used: {os.strerror(error.errno or 0)}", hint=hint
    )


def _bug(error: Exception, subject: str, device: str | None) -> InternalError:
    path = Path(
        "edgeq-crash-" + "-".join([str(os.getpid()), *([_file_part(device)] if device else [])]) + ".log"
    )
    text = several_lines("".join(traceback.format_exception(error)))
    try:
        path.write_text(text, encoding="utf-8")
        where = f"the traceback is in {path}"
    except OSError:
        sys.stderr.write(text)
        where = "the traceback is above"
    summary = " ".join(str(error).split())[:_SUMMARY_CHARACTERS]
    return InternalError(
        subject, f"a bug: {type(error).__name__}: {summary}", hint=f"please report it; {where}"
    )


def _file_part(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:64]
