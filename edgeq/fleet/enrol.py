"""Enrolling a device: see its key, log in, prove its Python, and only then write it down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.bundle.keys import PublicKey, workspace_key
from edgeq.errors import HostKeyMismatch, UsageError
from edgeq.fleet.backoff import retrying
from edgeq.fleet.connect import NO_RETRY, Retry, open_agent, open_transport
from edgeq.fleet.facts import Facts
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.names import check_host, check_name
from edgeq.fleet.openssh import transport as openssh
from edgeq.fleet.ssh.hostkeys import HostKey, check_pinned
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.ssh.route import Shown, find_route, first_jump_key, host_keys
from edgeq.fleet.ssh.transport import route_of
from edgeq.fleet.trust import pin
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
    return host_keys(route, timeout_s=timeout_s).device


def look_at(device: Device, *, timeout_s: float = STEP_S, jump_pins: Sequence[str] = ()) -> Shown:
    """Return the host keys on the way to a device by its own transport; nobody logs in at the device.

    Args:
        jump_pins: fingerprints that machines on the way must show, in the place of what is known of them.

    Raises:
        TransportError: by its subclass what failed.
    """
    if device.transport is TransportKind.OPENSSH and device.jump in (None, "none"):
        return Shown(device=openssh.shown_host_key(device, timeout_s=timeout_s), jumps=None)
    route = route_of(device)
    if jump_pins:
        route = find_route(
            name=device.name,
            host=device.host,
            port=device.port,
            user=device.user,
            jump=device.jump,
            ssh_config=device.ssh_config,
            jump_pins=jump_pins,
        )
    if device.transport is not TransportKind.OPENSSH:
        return host_keys(route, timeout_s=timeout_s)
    # ssh tells no keys of the machines on the way. The first one shows its own to whoever asks; for those
    # behind it somebody would have to log in, and ssh goes by known_hosts there.
    jumps = (first_jump_key(route, timeout_s=timeout_s),) if len(route.hops) == 2 else None
    if jumps is not None:
        device = dataclasses.replace(device, jump_host_key=str(jumps[0]))
    return Shown(device=openssh.shown_host_key(device, timeout_s=timeout_s), jumps=jumps)


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
    jump_fingerprints: Sequence[str] = (),
    retry: Retry = NO_RETRY,
) -> Enrolment:
    """Pin a device's host key, log in, run its Python, place the agent, and add it to the inventory.

    The device learns in turn whose releases to accept, if it does not know yet.

    Args:
        expected_fingerprint: refuse any other host key than this one (`SHA256:...`).
        replace: the device may be in the inventory already; its entry is written anew.
        publishers: whose releases it shall accept; else those that the workspace's own key signs.
        jump: machines on the way, as in `Device.jump`.
        transport: what carries the commands from now on.
        jump_fingerprints: of the machines on the way, in its order; without them `known_hosts` must have
            their keys. Where `jump` is given they are pinned with the device's.
        retry: of the connections.

    Raises:
        UsageError: the name is taken or cannot be one.
        HostKeyMismatch: another key than the expected one.
        TransportError, DeviceError: the device cannot be used; the inventory is as before.
    """
    check_name(name)
    check_host(host)
    if jump_fingerprints and jump in (None, "none"):
        raise UsageError("--jump-fingerprint", "there is no --jump", hint="name the machine on the way")
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
    shown = retrying(
        lambda: look_at(device, timeout_s=timeout_s, jump_pins=jump_fingerprints),
        retry.backoff,
        on_retry=retry.on_retry,
    )
    key = shown.device
    if expected_fingerprint is not None and key.fingerprint != expected_fingerprint:
        raise HostKeyMismatch(
            name,
            "shows another host key; nothing was sent to it",
            expected=expected_fingerprint,
            got=key.fingerprint,
            hint="read it on the device itself: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
    device = dataclasses.replace(device, host_key=str(key), jump_host_key=_pins(device, shown))
    with open_agent(device, timeout_s=timeout_s, retry=retry) as client:
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


def rotate_key(
    workspace: Path,
    name: str,
    *,
    fingerprint: str | None = None,
    jump_fingerprints: Sequence[str] = (),
    timeout_s: float = STEP_S,
) -> Device:
    """Pin new host keys of an enrolled device, once they are shown and the device lets us in.

    Args:
        fingerprint: of the device's own, as read there, `SHA256:...`; None keeps the pinned one.
        jump_fingerprints: of all machines on the way, in its order; none keeps what is pinned of them.

    Raises:
        UnknownName: no such device.
        HostKeyMismatch: another key is shown; what is pinned stays.
        TransportError: it cannot be reached, or refuses the login; what is pinned stays.
    """
    inventory = Inventory.load(workspace)
    before = inventory.get(name)
    if jump_fingerprints and before.jump in (None, "none"):
        raise UsageError(
            f"device {name!r}", "has no `jump` whose key could be pinned", hint="leave --jump-fingerprint out"
        )
    looked = before if not jump_fingerprints else dataclasses.replace(before, jump_host_key=None)
    shown = look_at(looked, timeout_s=timeout_s, jump_pins=jump_fingerprints)
    if fingerprint is None:
        check_pinned(name, pinned=HostKey.parse(before.host_key), shown=shown.device)
    elif shown.device.fingerprint != fingerprint:
        raise HostKeyMismatch(
            name,
            "shows another host key; the pinned one stays",
            expected=fingerprint,
            got=shown.device.fingerprint,
            hint="read it on the device itself: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
    device = dataclasses.replace(before, host_key=str(shown.device))
    if jump_fingerprints:
        device = dataclasses.replace(device, jump_host_key=_pins(device, shown))
    with open_transport(device, timeout_s=timeout_s):
        inventory.replace(device)
    return device


def _pins(device: Device, shown: Shown) -> str | None:
    if device.jump in (None, "none") or not shown.jumps:
        return None
    return ", ".join(str(key) for key in shown.jumps)
