"""`edgeq devices`: enrol, list and remove devices; emulate one; manage their boot service."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from edgeq.cli import completing
from edgeq.cli.device_import import import_command
from edgeq.cli.device_kernels import kernels_command
from edgeq.cli.device_native import native_command
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.device_service import service_command
from edgeq.cli.enrol_options import (
    home_option,
    identity_option,
    kind_option,
    label_option,
    parse_labels,
    publisher_option,
    python_option,
    transport_option,
)
from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import UsageError
from edgeq.units import format_size
from edgeq.values import Device, DeviceKind, TransportKind

_JUMP_FINGERPRINT = click.option(
    "--jump-fingerprint",
    "jump_fingerprints",
    multiple=True,
    metavar="SHA256:...",
    help="Host-key fingerprint of a jump host; repeatable. By default known_hosts must have the key.",
)


@click.group("devices", cls=CommandGroup)
def devices_command() -> None:
    """Enrol, import, list and remove devices; emulate one; manage their boot service."""


@command(
    "add",
    examples=[
        "edgeq devices add pi --host 192.168.1.20 --user pi --kind raspberry-pi --label site=lab",
        "edgeq devices add pi --host pi.local --user pi --fingerprint SHA256:nQxf...",
    ],
)
@click.argument("name")
@click.option(
    "--host", required=True, help="Host name or address of the device: [USER@]HOST[:PORT].", metavar="HOST"
)
@click.option("--port", type=click.IntRange(1, 65535), help="SSH port.  [default: that of --host, or 22]")
@click.option(
    "--user", help="User to log in as.  [default: that of --host, or your user name]", metavar="USER"
)
@kind_option(help="Kind of board; bundles may be made for some kinds only.")
@label_option
@identity_option(help="Private key file.")
@click.option(
    "--fingerprint",
    help="Fingerprint of its host key, SHA256:...; any other key is refused.",
    metavar="SHA256:...",
)
@python_option(help="Python interpreter on the device.")
@home_option(help="The agent's folder on the device, relative to the user's home.")
@publisher_option(
    help="Key that the device trusts: a name or a .pub file; repeatable.  [default: this workspace's key]"
)
@click.option("--jump", help="Jump host, [USER@]HOST[:PORT]; several separated by commas.", metavar="HOST")
@_JUMP_FINGERPRINT
@transport_option(
    help="openssh runs this machine's ssh program with its configuration; paramiko is built in."
)
@retries_option()
def _add(
    app: App,
    name: str,
    host: str,
    port: int | None,
    user: str | None,
    kind: str,
    labels: tuple[str, ...],
    identity: Path | None,
    fingerprint: str | None,
    python: str,
    home: str,
    publishers: tuple[str, ...],
    jump: str | None,
    jump_fingerprints: tuple[str, ...],
    transport: str,
    retries: int,
) -> None:
    """Pin the host key of a device, log in, check its Python, and add it to devices.toml.

    The device then trusts the key of this workspace, or the keys of --publisher: it accepts a release only if
    one of them has signed it.
    """
    from edgeq.bundle.keys import find_public
    from edgeq.fleet.enrol import enrol

    enrolment = enrol(
        app.workspace,
        name=name,
        host=host,
        port=port,
        user=user,
        kind=DeviceKind(kind),
        labels=parse_labels(labels),
        identity=identity,
        expected_fingerprint=fingerprint,
        python=python,
        home=home,
        publishers=[find_public(app.workspace, key) for key in publishers] or None,
        jump=jump,
        jump_fingerprints=jump_fingerprints,
        transport=TransportKind(transport),
        retry_policy=retry_policy(app, retries),
    )
    facts = enrolment.facts
    app.ui.line(f"{name}  {enrolment.fingerprint}")
    for pinned in _jump_fingerprints(enrolment.device):
        app.ui.line(f"{name} via {jump}  {pinned}")
    app.ui.line(
        f"Python {facts.python}, {facts.machine}, {facts.libc} {facts.libc_version}, "
        f"{format_size(facts.free_bytes)} free{f', {facts.model}' if facts.model else ''}"
    )
    app.ui.emit(
        "edgeq.devices.add/1",
        {
            "device": _entry(enrolment.device),
            "fingerprint": enrolment.fingerprint,
            "trusts": list(enrolment.trusts),
            "facts": facts.document,
        },
    )
    app.ui.line(f"accepts releases signed by {', '.join(enrolment.trusts)}")
    if not enrolment.pinned:
        app.ui.warn(
            f"{name} already trusts other keys; `edgeq keys trust --on {name}` adds this workspace's key"
        )
    if fingerprint is None:
        app.ui.say(
            f"pinned its present host key; compare it on {name}: ssh-keygen -lf /etc/ssh/ssh_host_*.pub"
        )
    app.ui.next("deploy", "BUNDLE", "--to", name)


@command("list", examples=["edgeq devices list", "edgeq devices list --json"])
def _list(app: App) -> None:
    """List the devices of this workspace."""

    devices = app.inventory().devices
    entries = [_entry(device) for device in devices]
    app.ui.table(
        ["name", "address", "kind", "labels", "host key"],
        [
            [
                device.name,
                f"{device.user}@{device.host}:{device.port}"
                + (f" via {device.jump}" if device.jump else "")
                + (" (openssh)" if device.transport is TransportKind.OPENSSH else ""),
                device.kind.value,
                " ".join(f"{key}={value}" for key, value in device.labels.items()),
                " via ".join([entry["fingerprint"], *entry["jump_fingerprints"]]),
            ]
            for device, entry in zip(devices, entries, strict=True)
        ],
    )
    app.ui.emit("edgeq.devices.list/1", {"devices": entries})
    if not devices:
        app.ui.next("devices", "add", "NAME", "--host", "HOST")
        app.ui.next("devices", "emulate", "NAME")


@command("remove", examples=["edgeq devices remove pi"])
@click.argument("name", shell_complete=completing.devices)
def _remove(app: App, name: str) -> None:
    """Remove a device from devices.toml; nothing changes on the device."""

    app.inventory().remove(name)
    app.ui.say(f"{name}: removed; the device itself is unchanged")
    app.ui.emit("edgeq.devices.remove/1", {"device": name})


@command("rotate-key", examples=["edgeq devices rotate-key pi --fingerprint SHA256:nQxf..."])
@click.argument("name", shell_complete=completing.devices)
@click.option(
    "--fingerprint",
    help="Fingerprint of the new host key, as read on the device: SHA256:...",
    metavar="SHA256:...",
)
@_JUMP_FINGERPRINT
def _rotate_key(app: App, name: str, fingerprint: str | None, jump_fingerprints: tuple[str, ...]) -> None:
    """Pin new host keys of a device, or of its jump hosts, in place of the old ones.

    Only keys with these fingerprints are pinned; read them on the machines themselves.
    """
    from edgeq.fleet.enrol import rotate_key
    from edgeq.fleet.ssh.hostkeys import HostKey

    if fingerprint is None and not jump_fingerprints:
        raise UsageError(
            "edgeq devices rotate-key", expected="--fingerprint or --jump-fingerprint", got="neither"
        )
    device = rotate_key(app.workspace, name, fingerprint=fingerprint, jump_fingerprints=jump_fingerprints)
    pinned = HostKey.parse(device.host_key).fingerprint
    app.ui.line(f"{name}  {pinned}")
    for shown in _jump_fingerprints(device):
        app.ui.line(f"{name} via {device.jump}  {shown}")
    app.ui.emit("edgeq.devices.rotate-key/1", {"device": _entry(device), "fingerprint": pinned})


@command(
    "emulate",
    examples=[
        "edgeq devices emulate pi-test",
        "edgeq devices emulate pi-test --detach --label site=lab",
    ],
)
@click.argument("name")
@click.option("--detach", is_flag=True, help="Run it in the background; `edgeq devices stop` stops it.")
@label_option
def _emulate(app: App, name: str, detach: bool, labels: tuple[str, ...]) -> None:
    """Start a loopback device on this machine and enrol it: a real SSH server with its own home folder."""
    from edgeq.testing.emulation import emulate

    added = parse_labels(labels)
    # Once it runs, Ctrl-C stops it; the command has not failed.
    with (
        emulate(app.workspace, name, detach=detach, labels=added) as running,
        contextlib.suppress(KeyboardInterrupt),
    ):
        app.ui.line(f"{name}  {running.device.host}:{running.device.port}  {running.device.fingerprint}")
        app.ui.emit(
            "edgeq.devices.emulate/1",
            {
                "device": _entry(running.enrolment.device),
                "fingerprint": running.device.fingerprint,
                "folder": str(running.device.folder),
                "pid": running.device.pid,
            },
        )
        if detach:
            app.ui.say(f"it runs in the background; `edgeq devices stop {name}` stops it")
        else:
            app.ui.say("it runs until Ctrl-C")
        app.ui.next("deploy", "BUNDLE", "--to", name)
        if not detach:
            running.device.process.wait()


@command("stop", examples=["edgeq devices stop pi-test"])
@click.argument("name", shell_complete=completing.devices)
def _stop(app: App, name: str) -> None:
    """Stop a loopback device that runs in the background; its folder and its inventory entry are kept."""
    from edgeq.testing.emulation import stop

    stop(app.workspace, name)
    app.ui.say(f"{name}: stopped; `edgeq devices emulate {name}` starts it again")
    app.ui.emit("edgeq.devices.stop/1", {"device": name})


for _command in (
    _add,
    import_command,
    _list,
    _remove,
    _rotate_key,
    _emulate,
    _stop,
    service_command,
    native_command,
    kernels_command,
):
    devices_command.add_command(_command)


def _entry(device: Device) -> dict[str, Any]:
    from edgeq.fleet.ssh.hostkeys import HostKey

    return {
        "name": device.name,
        "host": device.host,
        "port": device.port,
        "user": device.user,
        "kind": device.kind.value,
        "labels": dict(device.labels),
        "fingerprint": HostKey.parse(device.host_key).fingerprint,
        "jump": device.jump,
        "jump_fingerprints": _jump_fingerprints(device),
        "transport": device.transport.value,
    }


def _jump_fingerprints(device: Device) -> list[str]:
    from edgeq.fleet.ssh.hostkeys import parse_keys

    return [] if device.jump_host_key is None else [k.fingerprint for k in parse_keys(device.jump_host_key)]
