"""A home folder of a few bytes: a tmpfs that only this process and its children see."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from edgeq.errors import UsageError

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_REC_PRIVATE = 0x4000 | 0x40000


def mount_small(folder: Path, size_bytes: int) -> None:
    """Put an empty tmpfs of `size_bytes` on `folder`, in a mount namespace of this process.

    It is unmounted when the process ends. An ordinary user gets a user namespace for it; call this before
    any thread is started.

    Raises:
        UsageError: this machine does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = _CLONE_NEWNS if user == 0 else _CLONE_NEWNS | _CLONE_NEWUSER
    _check(libc.unshare(flags), "a mount namespace")
    if user != 0:
        Path("/proc/self/setgroups").write_bytes(b"deny")
        Path("/proc/self/uid_map").write_bytes(b"%d %d 1" % (user, user))
        Path("/proc/self/gid_map").write_bytes(b"%d %d 1" % (group, group))
    _check(libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "a private mount namespace")
    options = f"size={size_bytes},mode=700".encode()
    _check(libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, options), "a tmpfs")


def _check(status: int, what: str) -> None:
    if status != 0:
        raise UsageError(
            "small home", f"this machine does not allow {what}: {os.strerror(ctypes.get_errno())}"
        )
