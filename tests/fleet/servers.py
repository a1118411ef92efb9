"""An SSH server that tests enrol devices from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.archive import Bundle
from edgeq.fleet.enrol import Enrolment, enrol, fetch_host_key
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.testing.loopback import LoopbackDevice
from edgeq.values import Device

# Reads one of the bundles of `tests/fleet/conftest.py` by its name.
Read = Callable[[str], Bundle]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running SSH server that a device can be enrolled from."""

    host: str
    port: int
    user: str
    identity: Path
    fingerprint: str
    home: Path

    def device(self, name: str = "pi", *, port: int | None = None, identity: Path | None = None) -> Device:
        key: HostKey = fetch_host_key(self.host, self.port, 10)
        return Device(
            name=name,
            host=self.host,
            port=port or self.port,
            user=self.user,
            host_key=str(key),
            identity=identity or self.identity,
        )

    def enrol(self, workspace: Path, name: str = "pi", **more: Any) -> Device:
        return enrol_at(self, workspace, name, **more).device


def enrol_at(server: Server | LoopbackDevice, workspace: Path, name: str = "pi", **more: Any) -> Enrolment:
    """Enrol a device at a running SSH server, and hold it to its host key."""
    return enrol(
        workspace,
        name=name,
        host=server.host,
        port=server.port,
        user=server.user,
        identity=server.identity,
        expected_fingerprint=server.fingerprint,
        **more,
    )
