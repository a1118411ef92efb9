"""Access to a device: address, login and host key; wait until it answers."""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.fleet.enrol import Enrolment, enrol
from tests.lab import publisher

_EACH_S = 0.5
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """All that `edgeq devices add` asks for."""

    name: str
    host: str
    port: int
    user: str
    identity: Path
    fingerprint: str

    def enrol(self, workspace: Path, **more: Any) -> Enrolment:
        """Enrol the device under its name, hold it to its host key, and let it trust the lab's publisher."""
        return enrol(
            workspace,
            name=self.name,
            host=self.host,
            port=self.port,
            user=self.user,
            identity=self.identity,
            expected_fingerprint=self.fingerprint,
            publishers=[publisher.key().public],
            **more,
        )


def make_key(path: Path, comment: str) -> str:
    """Make an Ed25519 key pair where there is none yet, and return its fingerprint."""
    if not path.exists():
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(argv, check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_ssh(host: str, port: int, timeout_s: float, *, alive: Callable[[], str | None]) -> float:
    """Return after how many seconds an SSH server showed its banner.

    A connect alone proves nothing: qemu's forwarded port takes it before the guest has a network, and the
    connection then hangs for good. So there is a new one every half second, and the older ones stay open.

    Args:
        alive: None while the device runs, else why it ended.

    Raises:
        TimeoutError: there was none; RuntimeError: the device ended.
    """
    started_s = time.monotonic()
    waiting: list[socket.socket] = []
    next_s = started_s
    try:
        while (now_s := time.monotonic()) - started_s < timeout_s:
            if (reason := alive()) is not None:
                raise RuntimeError(f"{host}:{port} ended before it answered: {reason}")
            if now_s >= next_s:
                next_s = now_s + _EACH_S
                _try(host, port, waiting)
            if _banner(waiting):
                return time.monotonic() - started_s
    finally:
        for sock in waiting:
            sock.close()
    raise TimeoutError(f"{host}:{port} shows no SSH banner within {timeout_s:.0f} s")


def _try(host: str, port: int, waiting: list[socket.socket]) -> None:
    if len(waiting) == _AT_ONCE:
        waiting.pop(0).close()
    try:
        waiting.append(socket.create_connection((host, port), timeout=_EACH_S))
    except OSError:
        time.sleep(0.05)  # nothing listens yet: the next one comes


def _banner(waiting: list[socket.socket]) -> bool:
    if not waiting:
        return False
    for sock in select.select(waiting, [], [], 0.05)[0]:
        try:
            start = sock.recv(4)
        except OSError:
            start = b""
        if start == b"SSH-":
            return True
        waiting.remove(sock)
        sock.close()
    return False
