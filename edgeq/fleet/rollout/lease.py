"""The lease: one controller per rollout; it is taken over only from a dead process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeq.errors import RolloutBusy

FILE_NAME = "lease"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def hold(folder: Path, *, name: str) -> Iterator[None]:
    """Hold the lease of the rollout in `folder` for the duration of a `with` block.

    The lease is a kernel lock on the file, which ends with the process, so a dead controller holds nothing.
    The holder is also written into the file: for the error message, and for folders on network file systems,
    where the lock may not work. A lease written by another machine is never taken over.

    Raises:
        RolloutBusy: another controller holds it.
    """
    path = folder / FILE_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(name, _holder(descriptor)) from None
        before = _holder(descriptor)
        if before and not _dead(before):
            raise _busy(name, before)
        _write(descriptor, this_process())
        try:
            yield
        finally:
            # The file is kept: if it were removed, two controllers could lock two files of the same name.
            _write(descriptor, {})
    finally:
        os.close(descriptor)


def this_process() -> dict[str, Any]:
    """Return what the lease of this process says: its machine, boot, id and start time."""
    return {"host": _host(), "boot_id": _boot_id(), "pid": os.getpid(), "start": _start()}


def _dead(holder: dict[str, Any]) -> bool:
    if holder.get("host") != _host():
        return False
    if holder.get("boot_id") != _boot_id():
        return True
    # Process ids are reused; an id with a start time is not.
    return _start(holder.get("pid")) != holder.get("start")


def _busy(name: str, holder: dict[str, Any]) -> RolloutBusy:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}" if holder else "another process"
    if holder and holder.get("host") != _host():
        hint = f"if that machine is gone for good, remove .edgeq/rollouts/{name}/{FILE_NAME}"
    else:
        hint = f"`edgeq rollout show {name}` shows its progress, `edgeq rollout pause {name}` pauses it"
    return RolloutBusy(name, f"has a controller already: {who}", hint=hint)


def _holder(descriptor: int) -> dict[str, Any]:
    # Partly written by a controller that died meanwhile: it has no holder.
    with contextlib.suppress(ValueError):
        content = json.loads(os.pread(descriptor, 4096, 0))
        return content if isinstance(content, dict) else {}
    return {}


def _write(descriptor: int, holder: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
    os.fsync(descriptor)


def _host() -> str:
    return socket.gethostname()


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""


def _start(pid: object = "self") -> str | None:
    """Return when a process started, in clock ticks since boot; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]
