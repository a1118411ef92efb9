"""The loopback device: a real SSH server in its own process, with its own home folder and host key."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.errors import DeviceTimeout, TransportError
from edgeq.testing.server import Fault

_READY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackDevice:
    """A running loopback device: everything that `edgeq devices add` needs.

    Attributes:
        identity: the private key that it accepts.
        fingerprint: of its host key, `SHA256:...`.
        folder: its own folder; its home folder is `folder/home`.
        pid: its process.
    """

    host: str
    port: int
    user: str
    identity: Path
    fingerprint: str
    folder: Path
    pid: int
    process: subprocess.Popen[bytes] = field(repr=False, compare=False)

    @property
    def home(self) -> Path:
        """The login folder of the device."""
        return self.folder / "home"

    def stop(self) -> None:
        """Stop the device and every process on it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def start(
    folder: Path,
    *,
    port: int = 0,
    fault: Fault = Fault.NONE,
    home_size_bytes: int | None = None,
    detach: bool = False,
) -> LoopbackDevice:
    """Start a loopback device; a folder used before keeps its keys and its home.

    Args:
        port: 0 takes a free one.
        home_size_bytes: size of its home folder, then a tmpfs, to test a full disk.
        detach: keeps it running after this process ends.

    Raises:
        DeviceTimeout: it was not ready in time.
        TransportError: it ended at once; the message has its reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "edgeq.testing.loopback_main", str(folder.resolve()), "--port", str(port)]
    argv += ["--fault", fault.value]
    if home_size_bytes is not None:
        argv += ["--home-size", str(home_size_bytes)]
    if not detach:
        argv += ["--until-eof"]
    log = folder / "device.log"
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=detach,
        )
    try:
        ready = _ready(process, log)
    except BaseException:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        raise
    return LoopbackDevice(
        host=ready["host"],
        port=ready["port"],
        user=ready["user"],
        identity=Path(ready["identity"]),
        fingerprint=ready["fingerprint"],
        folder=folder,
        pid=ready["pid"],
        process=process,
    )


@contextlib.contextmanager
def loopback_device(
    folder: Path, *, port: int = 0, fault: Fault = Fault.NONE, home_size_bytes: int | None = None
) -> Iterator[LoopbackDevice]:
    """Run a loopback device for the duration of a `with` block; see `start`."""
    device = start(folder, port=port, fault=fault, home_size_bytes=home_size_bytes)
    try:
        yield device
    finally:
        device.stop()


def _ready(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - a pipe, as asked
    descriptor = process.stdout.fileno()
    deadline_s = time.monotonic() + _READY_S
    text = b""
    while not text.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DeviceTimeout("loopback device", f"not ready within {_READY_S:.0f} s", hint=f"see {log}")
        if not select.select([descriptor], [], [], left_s)[0]:
            continue
        piece = os.read(descriptor, 4096)
        if not piece:
            reason = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise TransportError(
                "loopback device", f"ended at once: {reason[-1] if reason else 'no reason given'}"
            )
        text += piece
    document: dict[str, Any] = json.loads(text)
    return document


if __name__ == "__main__":
    # `python -m edgeq.testing.loopback FOLDER` is the name people remember.
    from edgeq.testing.loopback_main import main

    main()
