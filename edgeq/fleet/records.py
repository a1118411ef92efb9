"""One device as a TOML table: every key is checked when read, defaults are omitted when written."""

from __future__ import annotations

import difflib
from enum import Enum
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Table

from edgeq.errors import ConfigError, EdgeqError, UsageError
from edgeq.files import expand_user
from edgeq.fleet.names import check_host, check_name, check_plain
from edgeq.fleet.ssh.hostkeys import HostKey, parse_keys
from edgeq.values import Device, DeviceKind, TransportKind

_KEYS: dict[str, type] = {
    "host": str,
    "port": int,
    "user": str,
    "kind": str,
    "host_key": str,
    "identity": str,
    "python": str,
    "home": str,
    "labels": dict,
    "jump": str,
    "native": str,
    "ssh_config": object,
    "transport": str,
    "jump_host_key": str,
    "device_id": str,
}
_REQUIRED = ("host", "user", "host_key")
_TYPE_NAMES = {str: "a string", int: "a number", dict: "a table of strings"}


def parse_device(path: str, workspace: Path, name: str, table: object) -> Device:
    """Return the device of one `[devices.NAME]` table.

    Args:
        path: of the file, for the message.
        workspace: the folder of relative paths.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type; names the key's path.
    """
    where = f"{path}: devices.{name}"
    if not isinstance(table, dict):
        raise ConfigError(where, expected="a table", got=repr(table)[:60])
    _check_keys(where, table)
    try:
        check_name(name)
        check_host(table["host"])
        HostKey.parse(table["host_key"])
    except EdgeqError as error:
        raise ConfigError(where, error.message) from error
    port = table.get("port", 22)
    if not 0 < port < 65536:
        raise ConfigError(f"{where}.port", expected="1 to 65535", got=str(port))
    kind = _one_of(f"{where}.kind", DeviceKind, table, DeviceKind.LINUX)
    identity = table.get("identity")
    return Device(
        name=name,
        host=table["host"],
        port=port,
        user=_plain(f"{where}.user", table["user"]),
        kind=DeviceKind(kind),
        labels=dict(table.get("labels", {})),
        host_key=table["host_key"],
        identity=workspace / expand_user(identity) if identity else None,
        python=_plain(f"{where}.python", table.get("python", "python3")),
        home=_plain(f"{where}.home", table.get("home", ".edgeq")),
        native=workspace / expand_user(table["native"]) if table.get("native") else None,
        jump=_plain(f"{where}.jump", table["jump"]) if "jump" in table else None,
        ssh_config=_ssh_config(f"{where}.ssh_config", workspace, table.get("ssh_config", True)),
        transport=TransportKind(_one_of(f"{where}.transport", TransportKind, table, TransportKind.PARAMIKO)),
        jump_host_key=_jump_keys(f"{where}.jump_host_key", table),
        device_id=table.get("device_id"),
        workspace=workspace,
    )


def to_table(device: Device) -> Table:
    """Return the table of a device, which `parse_device` turns into an equal device."""
    table = tomlkit.table()
    table["host"] = device.host
    if device.port != 22:
        table["port"] = device.port
    table["user"] = device.user
    table["kind"] = device.kind.value
    table["host_key"] = device.host_key
    if device.identity is not None:
        table["identity"] = str(device.identity)
    if device.python != "python3":
        table["python"] = device.python
    if device.home != ".edgeq":
        table["home"] = device.home
    if device.jump is not None:
        table["jump"] = device.jump
    if device.native is not None:
        table["native"] = str(device.native)
    if device.ssh_config is not True:
        table["ssh_config"] = device.ssh_config if device.ssh_config is False else str(device.ssh_config)
    if device.transport is not TransportKind.PARAMIKO:
        table["transport"] = device.transport.value
    if device.jump_host_key is not None:
        table["jump_host_key"] = device.jump_host_key
    if device.device_id is not None:
        table["device_id"] = device.device_id
    if device.labels:
        labels = tomlkit.inline_table()
        labels.update(device.labels)
        table["labels"] = labels
    return table


def _check_keys(where: str, table: dict[str, Any]) -> None:
    for key, value in table.items():
        if (key, value) == ("transport", "adb"):
            raise ConfigError(
                f"{where}.transport",
                "devices are reached over SSH only; adb is not supported",
                got=repr(value),
                hint="on Android install Termux and its openssh, use port 8022, and remove `transport`",
            )
        expected_type = _KEYS.get(key)
        if expected_type is None:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}.{key}", f"unknown key{meant}", expected=f"one of {', '.join(_KEYS)}")
        if not isinstance(value, expected_type) or (isinstance(value, bool) and expected_type is not object):
            raise ConfigError(f"{where}.{key}", expected=_TYPE_NAMES[expected_type], got=repr(value)[:60])
    for key in _REQUIRED:
        if key not in table:
            raise ConfigError(
                f"{where}.{key}",
                "is missing",
                hint="`edgeq devices add NAME --host HOST` writes a complete entry",
            )
    for key, value in table.get("labels", {}).items():
        if not isinstance(value, str):
            raise ConfigError(f"{where}.labels.{key}", expected="a string", got=repr(value)[:60])


def _one_of(where: str, kinds: type[Enum], table: dict[str, Any], usual: Enum) -> str:
    known = [kind.value for kind in kinds]
    value: str = table.get(where.rpartition(".")[2], usual.value)
    if value not in known:
        raise ConfigError(where, expected=f"one of {', '.join(known)}", got=repr(value))
    return value


def _jump_keys(where: str, table: dict[str, Any]) -> str | None:
    text: str | None = table.get("jump_host_key")
    if text is None:
        return None
    try:
        parse_keys(text)
    except EdgeqError as error:
        raise ConfigError(where, error.message) from error
    if table.get("jump", "none") == "none":
        raise ConfigError(
            where,
            "pins the keys of jump hosts, but there is no `jump`",
            hint="add `jump`, or remove it",
        )
    return text


def _ssh_config(where: str, workspace: Path, value: object) -> bool | Path:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value:
        return workspace / expand_user(value)
    raise ConfigError(where, expected="true, false or a file name", got=repr(value)[:60])


def _plain(where: str, text: str) -> str:
    try:
        return check_plain(where, text)
    except UsageError as error:
        raise ConfigError(where, expected=error.expected, got=error.got) from error
