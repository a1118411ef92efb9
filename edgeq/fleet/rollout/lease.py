"""The lease: one controller per rollout; it is taken over only from a dead process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
        if before is not None and not before.dead:
            raise _busy(name, before)
        _write(descriptor, this_process().to_json())
        try:
            yield
        finally:
            # The file is kept: if it were removed, two controllers could lock two files of the same name.
            _write(descriptor, {})
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lease; a field is None where the file does not say it.

    Attributes:
        boot_id: of the machine's kernel since its last start.
        start: when the process started, in clock ticks since then.
    """

    host: str | None
    boot_id: str | None
    pid: int | None
    start: str | None

    @property
    def here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == _host()

    @property
    def dead(self) -> bool:
        """Whether it ran on this machine and has ended."""
        if not self.here:
            return False
        if self.boot_id != _boot_id():
            return True
        # Process ids are reused; an id with a start time is not.
        return _start(self.pid) != self.start

    def to_json(self) -> dict[str, Any]:
        """Return the holder as the file of the lease has it."""
        return asdict(self)


def this_process() -> Holder:
    """Return what the lease of this process says: its machine, boot, id and start time."""
    return Holder(host=_host(), boot_id=_boot_id(), pid=os.getpid(), start=_start())


def _busy(name: str, holder: Holder | None) -> RolloutBusy:
    who = f"process {holder.pid or '?'} on {holder.host or '?'}" if holder else "another process"
    if holder and not holder.here:
        hint = f"if that machine is gone for good, remove .edgeq/rollouts/{name}/{FILE_NAME}"
    else:
        hint = f"`edgeq rollout show {name}` shows its progress, `edgeq rollout pause {name}` pauses it"
    return RolloutBusy(name, f"has a controller already: {who}", hint=hint)


def _holder(descriptor: int) -> Holder | None:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return None  # partly written by a controller that died meanwhile
    # The holder writes {} when it ends.
    if not isinstance(content, dict) or not content:
        return None
    host, boot_id, pid, start = (content.get(name) for name in ("host", "boot_id", "pid", "start"))
    return Holder(
        host=host if isinstance(host, str) else None,
        boot_id=boot_id if isinstance(boot_id, str) else None,
        pid=pid if isinstance(pid, int) else None,
        start=start if isinstance(start, str) else None,
    )


def _write(descriptor: int, content: Mapping[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode() + b"\n", 0)
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
