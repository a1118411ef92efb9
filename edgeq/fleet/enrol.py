"""Enrolling a device: see its key, log in, prove its Python, and only then write it down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.bundle.keys import PublicKey, workspace_key
from edgeq.errors import HostKeyMismatch, UsageError
from edgeq.fleet.connect import open_agent, open_transport
from edgeq.fleet.facts import Facts
from edgeq.fleet.hostkeys import HostKey
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.names import check_host, check_name
from edgeq.fleet.openssh import transport as openssh
from edgeq.fleet.route import find_route, host_key
from edgeq.fleet.ssh import route_of
from edgeq.fleet.trust import pin
from edgeq.fleet.watch import STEP_S
from edgeq.values import Device, DeviceKind, TransportKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A device that was enrolled.

    Attributes:
        fingerprint: of the host key that is pinned now, `SHA256:...`; compare it with the device's own.
        trusts: the ids of the keys whose releases the device accepts.
        pinned: whether it trusts the keys of this enrolment; it does not where it trusted others before.
    """

    device: Device
    facts: Facts
    fingerprint: str
    trusts: tuple[str, ...]
    pinned: bool


def fetch_host_key(
    host: str,
    port: int,
    timeout_s: float,
    *,
    name: str | None = None,
    jump: str | None = None,
    ssh_config: bool | Path = True,
) -> HostKey:
    """Return the host key that a server shows, without logging in.

    Raises:
        TransportError: by its subclass what failed.
    """
    route = find_route(name=name or host, host=host, port=port, user="", jump=jump, ssh_config=ssh_config)
    return host_key(route, timeout_s=timeout_s)


def look_at(device: Device, *, timeout_s: float = STEP_S) -> HostKey:
    """Return the host key that a device shows by its own transport; nobody logs in there.

    Raises:
        TransportError: by its subclass what failed.
    """
    if device.transport is TransportKind.OPENSSH:
        return openssh.shown_host_key(device, timeout_s=timeout_s)
    return host_key(route_of(device), timeout_s=timeout_s)


def enrol(
    workspace: Path,
    *,
    name: str,
    host: str,
    port: int = 22,
    user: str,
    kind: DeviceKind = DeviceKind.LINUX,
    labels: Mapping[str, str] | None = None,
    identity: Path | None = None,
    expected_fingerprint: str | None = None,
    python: str = "python3",
    home: str = ".edgeq",
    timeout_s: float = STEP_S,
    replace: bool = False,
    publishers: Sequence[PublicKey] | None = None,
    jump: str | None = None,
    ssh_config: bool | Path = True,
    transport: TransportKind = TransportKind.PARAMIKO,
) -> Enrolment:
    """Pin a device's host key, log in, run its Python, place the agent, and add it to the inventory.

    The device learns in turn whose releases to accept, if it does not know yet.

    Args:
        expected_fingerprint: refuse any other host key than this one (`SHA256:...`).
        replace: the device may be in the inventory already; its entry is written anew.
        publishers: whose releases it shall accept; else those that the workspace's own key signs.
        jump: machines on the way, as in `Device.jump`.
        transport: what carries the commands from now on.

    Raises:
        UsageError: the name is taken or cannot be one.
        HostKeyMismatch: another key than the expected one.
        TransportError, DeviceError: the device cannot be used; the inventory is as before.
    """
    check_name(name)
    check_host(host)
    inventory = Inventory.load(workspace)
    if not replace and name in inventory.names:
        raise UsageError(
            f"device {name!r}",
            "is enrolled already",
            hint=f"`edgeq devices remove {name}` first, or choose another name",
        )
    device = Device(
        name=name,
        host=host,
        port=port,
        user=user,
        kind=kind,
        labels=dict(labels or {}),
        host_key="",
        identity=identity.expanduser().resolve() if identity is not None else None,
        python=python,
        home=home,
        jump=jump,
        ssh_config=ssh_config,
        transport=transport,
    )
    key = look_at(device, timeout_s=timeout_s)
    if expected_fingerprint is not None and key.fingerprint != expected_fingerprint:
        raise HostKeyMismatch(
            name,
            "shows another host key; nothing was sent to it",
            expected=expected_fingerprint,
            got=key.fingerprint,
            hint="read it on the device itself: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
    device = dataclasses.replace(device, host_key=str(key))
    with open_agent(device, timeout_s=timeout_s) as client:
        facts = client.facts()
        keys = publishers if publishers is not None else [workspace_key(workspace).public]
        store = pin(client, keys)
    trusts = tuple(str(key["id"]) for key in store["keys"] if key["state"] == "active")
    if replace:
        inventory.replace(device)
    else:
        inventory.add(device)
    return Enrolment(
        device=device,
        facts=facts,
        fingerprint=key.fingerprint,
        trusts=trusts,
        pinned={publisher.id for publisher in keys} <= set(trusts),
    )


def rotate_key(workspace: Path, name: str, *, fingerprint: str, timeout_s: float = STEP_S) -> Device:
    """Pin the new host key of an enrolled device, once it shows the one with this fingerprint and lets us in.

    Args:
        fingerprint: as read on the device itself, `SHA256:...`.

    Raises:
        UnknownName: no such device.
        HostKeyMismatch: it shows another key; the one that is pinned stays.
        TransportError: it cannot be reached, or refuses the login; the one that is pinned stays.
    """
    inventory = Inventory.load(workspace)
    before = inventory.get(name)
    shown = look_at(before, timeout_s=timeout_s)
    if shown.fingerprint != fingerprint:
        raise HostKeyMismatch(
            name,
            "shows another host key; the pinned one stays",
            expected=fingerprint,
            got=shown.fingerprint,
            hint="read it on the device itself: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
    device = dataclasses.replace(before, host_key=str(shown))
    with open_transport(device, timeout_s=timeout_s):
        inventory.replace(device)
    return device
