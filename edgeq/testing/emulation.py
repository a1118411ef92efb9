"""The loopback devices of a workspace: start and enrol one, or stop it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import TransportError, UnknownName, UsageError
from edgeq.files import write_atomic
from edgeq.fleet.enrol import Enrolment, enrol
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.names import check_device_name
from edgeq.testing.loopback import LoopbackDevice, start

_STOP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """A loopback device that is in the inventory."""

    device: LoopbackDevice
    enrolment: Enrolment


def folder_of(workspace: Path, name: str) -> Path:
    """Return the folder of a workspace's loopback device."""
    return workspace / ".edgeq" / "emulated" / check_device_name(name)


@contextmanager
def emulate(
    workspace: Path, name: str, *, detach: bool = False, labels: Mapping[str, str] | None = None
) -> Iterator[Emulated]:
    """Run a loopback device and enrol it under a name for the duration of a `with` block.

    A device that was emulated before keeps its keys, its home and, if it is free, its port.

    Args:
        detach: keep it running after the block.
        labels: added to its present ones; a new device has `emulated=yes`.

    Raises:
        UsageError: another device has the name, or it is running already.
    """
    folder = folder_of(workspace, name)
    known = {device.name: device for device in Inventory.load(workspace).devices}
    if name in known and not folder.is_dir():
        raise UsageError(
            f"device {name!r}",
            "is enrolled already, and is not an emulated device",
            hint="choose another name",
        )
    if _pid(folder) is not None:
        raise UsageError(
            f"device {name!r}", "is running already", hint=f"stop it with `edgeq devices stop {name}`"
        )
    device = _start(folder, known[name].port if name in known else 0, detach)
    try:
        enrolment = enrol(
            workspace,
            name=name,
            host=device.host,
            port=device.port,
            user=device.user,
            identity=device.identity,
            labels={**(known[name].labels if name in known else {"emulated": "yes"}), **(labels or {})},
            expected_fingerprint=device.fingerprint,
            replace=True,
        )
        write_atomic(folder / "running.json", json.dumps({"pid": device.pid}).encode())
        yield Emulated(device=device, enrolment=enrolment)
    except BaseException:
        device.stop()
        raise
    if detach:
        if device.process.stdout is not None:
            device.process.stdout.close()
        device.process.returncode = 0  # it keeps running; this avoids Popen's warning
    else:
        device.stop()


def stop(workspace: Path, name: str) -> None:
    """Stop a loopback device that runs in the background.

    Raises:
        UnknownName: no device of that name is running.
    """
    folder = folder_of(workspace, name)
    pid = _pid(folder)
    if pid is None:
        raise UnknownName(f"device {name!r}", "no emulated device of that name is running")
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _STOP_S
    while _pid(folder) is not None:
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    (folder / "running.json").unlink(missing_ok=True)


def _start(folder: Path, port: int, detach: bool) -> LoopbackDevice:
    try:
        return start(folder, port=port, detach=detach)
    except TransportError:
        if port == 0:
            raise
    # Its previous port is taken; its entry gets the new one.
    return start(folder, port=0, detach=detach)


def _pid(folder: Path) -> int | None:
    # A process id alone is not enough: it may belong to another process by now.
    try:
        pid = int(json.loads((folder / "running.json").read_bytes())["pid"])
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError):
        return None
    return pid if os.fsencode(folder.resolve()) in argv and b"edgeq.testing.loopback_main" in argv else None
