"""The inventory: `devices.toml`, read strictly, written with its comments kept."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.toml_document import TOMLDocument

from edgeq.errors import ConfigError, UsageError
from edgeq.files import write_atomic
from edgeq.fleet.names import unknown
from edgeq.fleet.records import parse_device, to_table
from edgeq.values import Device

FILE_NAME = "devices.toml"
_LABELS = ("label:", "label=")
_LIST = "`edgeq devices list` shows the devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The devices of a workspace as they were when the file was read.

    `add`, `replace` and `remove` change the file and return the inventory after the change; two processes
    that change it at once take turns.
    """

    workspace: Path
    devices: tuple[Device, ...]

    @classmethod
    def load(cls, workspace: Path) -> Inventory:
        """Read `<workspace>/devices.toml`; a file that is not there is an empty inventory.

        Raises:
            ConfigError: the file is no TOML, or has keys or values that it may not have.
        """
        return _parsed(workspace, _read(workspace / FILE_NAME))

    @property
    def names(self) -> tuple[str, ...]:
        """The devices' names in the file's order."""
        return tuple(device.name for device in self.devices)

    def get(self, name: str) -> Device:
        """Return one device.

        Raises:
            UnknownName: no device of that name; the message names the nearest one.
            UsageError: it is a selection, which may be several.
        """
        for device in self.devices:
            if device.name == name:
                return device
        if is_selection(name):
            raise UsageError(repr(name), expected="the name of one device", got="a selection", hint=_LIST)
        raise unknown("device", name, self.names, hint=_LIST)

    def select(self, selectors: Sequence[str]) -> tuple[Device, ...]:
        """Return the devices that a list of selectors names, each once, in the inventory's order.

        Args:
            selectors: a device name, `label:KEY=VALUE` (or `label=KEY=VALUE`), or `all`.

        Raises:
            UnknownName: a name or a label that no device has.
        """
        chosen: set[str] = set()
        for selector in selectors:
            chosen.update(self._names_of(selector))
        return tuple(device for device in self.devices if device.name in chosen)

    def add(self, device: Device) -> Inventory:
        """Append a device to the file.

        Raises:
            UsageError: a device of that name is there already.
        """
        with _locked(self.workspace):
            document = _read(self.workspace / FILE_NAME)
            if device.name in _parsed(self.workspace, document).names:
                raise UsageError(
                    f"device {device.name!r}",
                    "is enrolled already",
                    hint=f"`edgeq devices remove {device.name}` first, or choose another name",
                )
            return self._write(document, device)

    def replace(self, device: Device) -> Inventory:
        """Put a device in the place of the one with its name, or append it."""
        with _locked(self.workspace):
            return self._write(_read(self.workspace / FILE_NAME), device)

    def remove(self, name: str) -> Inventory:
        """Take a device out of the file.

        Raises:
            UnknownName: no device of that name.
        """
        with _locked(self.workspace):
            document = _read(self.workspace / FILE_NAME)
            _parsed(self.workspace, document).get(name)
            del document["devices"][name]
            return self._save(document)

    def _names_of(self, selector: str) -> tuple[str, ...]:
        if selector == "all":
            if not self.devices:
                raise unknown("device", "all", (), hint="`edgeq devices add` enrols one")
            return self.names
        if not is_selection(selector):
            return (self.get(selector).name,)
        key, _, value = selector[len("label:") :].partition("=")
        found = tuple(device.name for device in self.devices if device.labels.get(key) == value)
        if not found:
            labels = {f"label:{k}={v}" for device in self.devices for k, v in device.labels.items()}
            raise unknown("label", selector, labels, hint="`edgeq devices list` shows the labels")
        return found

    def _write(self, document: TOMLDocument, device: Device) -> Inventory:
        if "devices" not in document:
            document["devices"] = tomlkit.table(is_super_table=True)
        document["devices"][device.name] = to_table(device)
        return self._save(document)

    def _save(self, document: TOMLDocument) -> Inventory:
        after = _parsed(self.workspace, document)
        write_atomic(self.workspace / FILE_NAME, tomlkit.dumps(document).encode())
        return after


def _read(path: Path) -> TOMLDocument:
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"no text: {error.reason}") from error
    except TOMLKitError as error:
        raise ConfigError(str(path), f"no TOML: {error}") from error
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error


def _parsed(workspace: Path, document: TOMLDocument) -> Inventory:
    path = str(workspace / FILE_NAME)
    content: Mapping[str, Any] = document.unwrap()
    for key in content:
        if key != "devices":
            raise ConfigError(path, f"unknown key {key!r}", expected="[devices.NAME] tables")
    tables = content.get("devices", {})
    if not isinstance(tables, dict):
        raise ConfigError(path, "`devices` is no table", expected="[devices.NAME] tables")
    devices = tuple(parse_device(path, workspace, name, table) for name, table in tables.items())
    return Inventory(workspace=workspace, devices=devices)


def is_selection(text: str) -> bool:
    """Tell a selection of devices (`label:KEY=VALUE`, `all`) from a device's name."""
    return text == "all" or text.startswith(_LABELS)


@contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    folder = workspace / ".edgeq"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "devices.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
