"""Enrol the hosts of a file: decide what each needs, then enrol the new ones, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from edgeq.bundle.keys import PublicKey, workspace_key
from edgeq.errors import ConfigError, EdgeqError
from edgeq.fleet.address import parse_address
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.enrol import Enrolment, LoginAddress, enrol, login_address
from edgeq.fleet.hosts.entry import BadEntry, HostEntry, HostFile
from edgeq.fleet.parallel import on_each
from edgeq.store import Store, recording_store
from edgeq.values import Device, DeviceKind, TransportKind

# What makes a host another device: its address, port and user, and the folder of its agent.
_Key = tuple[str, int, str, str]


class Action(StrEnum):
    """What an import does with a host."""

    ENROL = "enrol"
    PRESENT = "present"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Settings of the hosts that leave them open; the labels are added to a host's own."""

    user: str | None = None
    kind: DeviceKind = DeviceKind.LINUX
    labels: Mapping[str, str] = field(default_factory=dict)
    identity: Path | None = None
    python: str = "python3"
    home: str = ".edgeq"
    jump: str | None = None
    transport: TransportKind = TransportKind.PARAMIKO


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A host and what an import does with it.

    Attributes:
        because: why it is not enrolled, if it is not.
    """

    entry: HostEntry
    address: LoginAddress
    action: Action
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What an import of a file does, in its order; `bad` has what it cannot do."""

    planned: tuple[Planned, ...]
    bad: tuple[BadEntry, ...]

    @property
    def new(self) -> tuple[Planned, ...]:
        """The hosts to enrol."""
        return tuple(one for one in self.planned if one.action is Action.ENROL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The new devices by name, and the errors of those that could not be enrolled."""

    done: Mapping[str, Enrolment]
    failed: Mapping[str, EdgeqError]


def plan_import(hosts: HostFile, devices: Sequence[Device], defaults: Defaults) -> ImportPlan:
    """Decide what an import does with each host; pure.

    The same address, port, user and agent folder under another name is a duplicate; a name that has another
    address already is an error.
    """
    by_name = {device.name: _key_of(device) for device in devices}
    by_key = {key: f"the device {name}" for name, key in by_name.items()}
    names: dict[str, tuple[str, _Key]] = {}
    planned: list[Planned] = []
    bad = list(hosts.bad)
    for entry in hosts.entries:
        try:
            address = _address(entry, defaults)
        except EdgeqError as error:
            problem = ConfigError(entry.where, error.message, hint="correct the line, then import again")
            bad.append(BadEntry(where=entry.where, name=entry.name, error=problem))
            continue
        key = (address.host.lower(), address.port, address.user, entry.home or defaults.home)
        at = f"{address.user}@{address.host}:{address.port}"
        earlier = names.get(entry.name)
        if by_name.get(entry.name, key) != key or (earlier is not None and earlier[1] != key):
            place = "enrolled" if entry.name in by_name else f"in {earlier[0] if earlier else ''}"
            problem = ConfigError(
                entry.where,
                f"{entry.name} is {place} already, with another address",
                got=at,
                hint=f"`edgeq devices remove {entry.name}` first, or choose another name",
            )
            bad.append(BadEntry(where=entry.where, name=entry.name, error=problem))
            continue
        action, because = Action.ENROL, ""
        if entry.name in by_name:
            action, because = Action.PRESENT, "is enrolled already"
        elif key in by_key:
            action, because = Action.DUPLICATE, f"has the address of {by_key[key]}, {at}"
        names.setdefault(entry.name, (entry.where, key))
        by_key.setdefault(key, f"{entry.name} in {entry.where}")
        planned.append(Planned(entry=entry, address=address, action=action, because=because))
    return ImportPlan(planned=tuple(planned), bad=tuple(bad))


def enrol_hosts(
    workspace: Path,
    plan: ImportPlan,
    defaults: Defaults,
    *,
    publishers: Sequence[PublicKey] | None = None,
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
    on_done: Callable[[str], None] = lambda _name: None,
) -> Imported:
    """Enrol the new hosts of a plan, several at a time; each device that works is in the inventory at once.

    Args:
        publishers: keys that the devices trust; the workspace's own by default.
        store: holds the audit log; the workspace's store by default.
        on_done: called with the name of each host that was tried, from another thread.

    Raises:
        StoreError: the store cannot be opened; nothing was tried.
    """
    entries = {one.entry.name: one for one in plan.new}
    if not entries:
        return Imported(done={}, failed={})
    # Made once: several devices at a time must not each make a key.
    signers = list(publishers) if publishers is not None else [workspace_key(workspace).public]
    with recording_store(store, workspace) as opened:

        def add(device: Device) -> Enrolment:
            try:
                return _enrol(workspace, entries[device.name], defaults, signers, retry_policy, opened)
            finally:
                on_done(device.name)

        results = on_each([_placeholder(one) for one in entries.values()], add)
    return Imported(done=results.done, failed=results.failed)


def _enrol(
    workspace: Path,
    planned: Planned,
    defaults: Defaults,
    signers: Sequence[PublicKey],
    retry_policy: RetryPolicy,
    store: Store,
) -> Enrolment:
    entry, address = planned.entry, planned.address
    return enrol(
        workspace,
        name=entry.name,
        host=f"[{address.host}]" if ":" in address.host else address.host,
        port=address.port,
        user=address.user,
        kind=entry.kind or defaults.kind,
        labels={**defaults.labels, **entry.labels},
        identity=entry.identity or defaults.identity,
        expected_fingerprint=entry.fingerprint,
        python=entry.python or defaults.python,
        home=entry.home or defaults.home,
        publishers=signers,
        jump=entry.jump or defaults.jump,
        ssh_config=entry.ssh_config,
        transport=entry.transport or defaults.transport,
        retry_policy=retry_policy,
        store=store,
    )


def _address(entry: HostEntry, defaults: Defaults) -> LoginAddress:
    written = parse_address(entry.host)
    user = entry.user or (None if written.user else defaults.user)
    return login_address(entry.host, port=entry.port, user=user)


def _key_of(device: Device) -> _Key:
    return device.host.lower(), device.port, device.user, device.home


def _placeholder(planned: Planned) -> Device:
    address = planned.address
    return Device(
        name=planned.entry.name, host=address.host, port=address.port, user=address.user, host_key=""
    )
