"""Enrol a device: check its host key, log in, run its Python, then add it to the inventory."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from edgeq.bundle.keys import WORKSPACE_KEY, PublicKey, find_public
from edgeq.bundle.trust_chain import chain_path, load_chain
from edgeq.command_line import command_line
from edgeq.errors import EdgeqError, HostKeyMismatch, UsageError
from edgeq.files import expand_user
from edgeq.fleet.address import parse_address
from edgeq.fleet.audit import actor
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy, retrying
from edgeq.fleet.connect import open_agent, open_transport
from edgeq.fleet.facts import Facts
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.names import check_device_name, check_plain
from edgeq.fleet.openssh import transport as openssh
from edgeq.fleet.ssh.hostkeys import HostKey, check_pinned, parse_keys
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.ssh.route import HostKeys, first_jump_key, host_keys, resolve_route
from edgeq.fleet.ssh.transport import route_of
from edgeq.fleet.trust import pin
from edgeq.fleet.trust_documents import pin_document
from edgeq.kernels import class_name, record_class
from edgeq.store import Store, recording_store
from edgeq.values import Device, DeviceKind, TransportKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """An enrolled device.

    Attributes:
        fingerprint: of the pinned host key, `SHA256:...`; compare it with the device's own.
        trusts: the ids of the keys whose releases the device accepts.
        pinned: whether it trusts the keys of this enrolment; it does not if it trusted others before.
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
    """Return the host key of a server, without logging in.

    Raises:
        TransportError: the subclass says what failed.
    """
    route = resolve_route(name=name or host, host=host, port=port, user="", jump=jump, ssh_config=ssh_config)
    return host_keys(route, timeout_s=timeout_s).device


def fetch_route_keys(device: Device, *, timeout_s: float = STEP_S, jump_pins: Sequence[str] = ()) -> HostKeys:
    """Return the host keys of a device and of its jump hosts, by its own transport, without a login.

    Args:
        jump_pins: fingerprints that the jump hosts must have, instead of those in known_hosts.

    Raises:
        TransportError: the subclass says what failed.
    """
    if device.transport is TransportKind.OPENSSH and device.jump in (None, "none"):
        return HostKeys(device=openssh.shown_host_key(device, timeout_s=timeout_s), jumps=None)
    route = route_of(device)
    if jump_pins:
        route = resolve_route(
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
    # ssh does not report the keys of jump hosts. The first one can be asked directly; those behind it only
    # after a login, so that ssh checks them against known_hosts.
    jumps = (first_jump_key(route, timeout_s=timeout_s),) if len(route.hops) == 2 else None
    if jumps is not None:
        device = dataclasses.replace(device, jump_host_key=str(jumps[0]))
    return HostKeys(device=openssh.shown_host_key(device, timeout_s=timeout_s), jumps=jumps)


def enrol(
    workspace: Path,
    *,
    name: str,
    host: str,
    port: int | None = None,
    user: str | None = None,
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
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Enrolment:
    """Pin a device's host key, log in, run its Python, install the agent, and add it to the inventory.

    If the device trusts no signing key yet, it is given one to trust. The pinned keys go to the audit log.

    Args:
        workspace: holds `devices.toml`, the signing keys and, by default, the store.
        name: of the device in the inventory.
        host: a host name, an address, or an alias of the ssh configuration; may be `ssh://USER@HOST:PORT`, or
            a part of it.
        port: by default that in `host`, or 22.
        user: who logs in on the device; by default that in `host`, or the user of this machine.
        kind: which releases fit the device.
        labels: for selections such as `label:site=lab`.
        identity: the private key file; by default those of the ssh configuration and the ssh agent.
        expected_fingerprint: refuse any other host key (`SHA256:...`).
        python: the interpreter on the device.
        home: the agent's folder on the device, relative to the user's home.
        timeout_s: time limit of each step of the connection.
        replace: replace the entry if the device is in the inventory already.
        publishers: keys whose releases the device accepts; by default the workspace's own key.
        jump: jump hosts, as in `Device.jump`.
        ssh_config: a configuration file, or whether the user's own is read.
        transport: what carries the commands from now on.
        jump_fingerprints: of the jump hosts, in order; without them `known_hosts` must hold their keys. If
            `jump` is given they are pinned with the device's.
        retry_policy: applies to the connections.
        store: holds the audit log; the workspace's store by default.

    Raises:
        UsageError: the name is taken or invalid, or the device is enrolled under another name.
        HostKeyMismatch: the host key is not the expected one.
        TransportError, DeviceError: the device cannot be used; the inventory is unchanged.
        StoreError: the store cannot be opened.
    """
    check_device_name(name)
    address = login_address(host, port=port, user=user)
    for option, text in (("--user", address.user), ("--python", python), ("--home", home)):
        check_plain(option, text)
    if jump_fingerprints and jump in (None, "none"):
        raise UsageError("--jump-fingerprint", "needs --jump", hint="name the jump host with --jump")
    inventory = Inventory.load(workspace)
    if not replace and name in inventory.names:
        raise UsageError(
            f"device {name!r}",
            "is enrolled already",
            hint=f"run `edgeq devices remove {name}` first, or choose another name",
        )
    device = Device(
        name=name,
        host=address.host,
        port=address.port,
        user=address.user,
        kind=kind,
        labels=dict(labels or {}),
        host_key="",
        identity=expand_user(identity).resolve() if identity is not None else None,
        python=python,
        home=home,
        jump=jump,
        ssh_config=ssh_config,
        transport=transport,
        workspace=workspace,
    )
    keys = retrying(
        lambda: fetch_route_keys(device, timeout_s=timeout_s, jump_pins=jump_fingerprints), retry_policy
    )
    key = keys.device
    if expected_fingerprint is not None and key.fingerprint != expected_fingerprint:
        raise HostKeyMismatch(
            name,
            "has another host key; nothing was sent to it",
            expected=expected_fingerprint,
            got=key.fingerprint,
            hint="read it on the device itself: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
    device = dataclasses.replace(device, host_key=str(key), jump_host_key=_pins(device, keys))
    with open_agent(device, timeout_s=timeout_s, retry_policy=retry_policy) as client:
        facts = client.facts()
        device = dataclasses.replace(device, device_id=facts.device_id)
        _with_ids(inventory, device).check_new(device)
        chain = load_chain(chain_path(workspace))
        if publishers is None and chain.latest is not None:
            signers = set(chain.latest.roles.release.keys)
            trusts = pin_document(client, chain).active
        else:
            keys_to_pin = publishers if publishers is not None else [find_public(workspace, WORKSPACE_KEY)]
            signers = {key.id for key in keys_to_pin}
            trusts = pin(client, keys_to_pin).active
    if replace:
        inventory.replace(device)
    else:
        inventory.add(device)
    _audit("devices add", device, None, workspace, store)
    with recording_store(store, workspace) as opened:
        record_class(device.name, class_name(facts.machine, facts.pointer_bits), opened)
    return Enrolment(
        device=device,
        facts=facts,
        fingerprint=key.fingerprint,
        trusts=trusts,
        pinned=signers <= set(trusts),
    )


def _with_ids(inventory: Inventory, device: Device) -> Inventory:
    """Return the inventory with the ids of devices that have the same host key, as far as they answer."""
    devices = []
    for other in inventory.devices:
        if other.device_id is None and other.host_key == device.host_key and other.name != device.name:
            # One that does not answer is compared when it is enrolled again.
            with contextlib.suppress(EdgeqError), open_agent(other) as client:
                other = dataclasses.replace(other, device_id=client.facts().device_id)
        devices.append(other)
    return dataclasses.replace(inventory, devices=tuple(devices))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginAddress:
    """Where to log in, and as whom."""

    host: str
    port: int
    user: str


def login_address(host: str, *, port: int | None, user: str | None) -> LoginAddress:
    """Combine the parts of `host` with the options.

    Raises:
        UsageError: there are two different values for one part, or `host` is not an address.
    """
    written = parse_address(host)
    for option, given, in_host in (("--port", port, written.port), ("--user", user, written.user)):
        if given is not None and in_host is not None and given != in_host:
            raise UsageError(
                option,
                f"--host {host!r} has another one",
                expected=str(in_host),
                got=str(given),
                hint=f"omit {option}",
            )
    return LoginAddress(
        host=written.host,
        port=port or written.port or 22,
        user=user or written.user or getpass.getuser(),
    )


def rotate_key(
    workspace: Path,
    name: str,
    *,
    fingerprint: str | None = None,
    jump_fingerprints: Sequence[str] = (),
    timeout_s: float = STEP_S,
    store: Store | None = None,
) -> Device:
    """Pin new host keys of an enrolled device, after a successful login, and write it to the audit log.

    Args:
        fingerprint: of the device's new key, as read on the device, `SHA256:...`; None keeps the pinned one.
        jump_fingerprints: of all jump hosts, in order; if empty, their pinned keys are kept.
        timeout_s: time limit of each step of the connection.
        store: holds the audit log; the workspace's store by default.

    Raises:
        UnknownName: no such device.
        HostKeyMismatch: the host key is another one; the pinned keys are kept.
        TransportError: it cannot be reached, or refuses the login; the pinned keys are kept.
        StoreError: the store cannot be opened.
    """
    inventory = Inventory.load(workspace)
    before = inventory.get(name)
    if jump_fingerprints and before.jump in (None, "none"):
        raise UsageError(
            f"device {name!r}", "has no `jump`, so there is no key to pin", hint="omit --jump-fingerprint"
        )
    target = before if not jump_fingerprints else dataclasses.replace(before, jump_host_key=None)
    keys = fetch_route_keys(target, timeout_s=timeout_s, jump_pins=jump_fingerprints)
    if fingerprint is None:
        check_pinned(name, pinned=HostKey.parse(before.host_key), shown=keys.device)
    elif keys.device.fingerprint != fingerprint:
        raise HostKeyMismatch(
            name,
            "has another host key; the pinned one is kept",
            expected=fingerprint,
            got=keys.device.fingerprint,
            hint="read it on the device itself: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`",
        )
    device = dataclasses.replace(before, host_key=str(keys.device))
    if jump_fingerprints:
        device = dataclasses.replace(device, jump_host_key=_pins(device, keys))
    with open_transport(device, timeout_s=timeout_s):
        inventory.replace(device)
    _audit("devices rotate-key", device, before, workspace, store)
    return device


def _pins(device: Device, keys: HostKeys) -> str | None:
    if device.jump in (None, "none") or not keys.jumps:
        return None
    return ", ".join(str(key) for key in keys.jumps)


def _audit(action: str, device: Device, before: Device | None, workspace: Path, store: Store | None) -> None:
    body = {"before": None if before is None else _fingerprints(before), "after": _fingerprints(device)}
    with recording_store(store, workspace) as opened:
        opened.record_audit(
            actor(), action, device.name, body, host=gethostname(), command=command_line(), result="done"
        )


def _fingerprints(device: Device) -> dict[str, object]:
    jumps = [] if device.jump_host_key is None else parse_keys(device.jump_host_key)
    return {
        "fingerprint": HostKey.parse(device.host_key).fingerprint,
        "jump_fingerprints": [key.fingerprint for key in jumps],
    }
