"""The inventory: read `devices.toml` strictly, and write it with its comments preserved."""

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
from edgeq.fleet.names import check_device_name, unknown
from edgeq.fleet.records import parse_device, to_table
from edgeq.values import Device

FILE_NAME = "devices.toml"
_LABELS = ("label:", "label=")
_LIST = "`edgeq devices list` shows the devices"
_ENROL = "enrol one with `edgeq devices add NAME --host HOST`"
_RENAME = "rename or remove the table in devices.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProblem:
    """What is wrong with one table of `devices.toml` that stops no other one.

    Attributes:
        name: the device's name in the file.
        text: one line, with the file.
        unused: whether the table is left out.
    """

    name: str
    text: str
    unused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The devices of a workspace at the time the file was read.

    `add`, `replace` and `remove` change the file and return the new inventory; a lock serializes concurrent
    changes.

    Attributes:
        problems: names that no device can have, whose tables are left out, and second names of a device.
    """

    workspace: Path
    devices: tuple[Device, ...]
    problems: tuple[TableProblem, ...] = ()

    @classmethod
    def load(cls, workspace: Path) -> Inventory:
        """Read `<workspace>/devices.toml`; a missing file is an empty inventory.

        Raises:
            ConfigError: the file is not TOML, or has unknown keys or invalid values.
        """
        return _parsed(workspace, _read(workspace / FILE_NAME))

    @property
    def names(self) -> tuple[str, ...]:
        """The devices' names in the file's order."""
        return tuple(device.name for device in self.devices)

    def get(self, name: str) -> Device:
        """Return one device.

        Raises:
            UnknownName: no such device; the message suggests the closest name.
            UsageError: it is a selection of several devices, or its table is left out.
        """
        for device in self.devices:
            if device.name == name:
                return device
        for problem in self.problems:
            if problem.name == name and problem.unused:
                raise UsageError(f"device {name!r}", problem.text, hint=_RENAME)
        if is_selection(name):
            raise UsageError(repr(name), expected="the name of one device", got="a selection", hint=_LIST)
        raise unknown("device", name, self.names, hint=_LIST if self.names else _ENROL)

    def select(self, selectors: Sequence[str]) -> tuple[Device, ...]:
        """Return the devices that selectors match, each once, in the inventory's order.

        Args:
            selectors: a device name, `label:KEY=VALUE` (or `label=KEY=VALUE`), or `all`.

        Raises:
            UnknownName: no device has a name or label.
        """
        chosen: set[str] = set()
        for selector in selectors:
            chosen.update(self._names_of(selector))
        return tuple(device for device in self.devices if device.name in chosen)

    def add(self, device: Device) -> Inventory:
        """Append a device to the file.

        Raises:
            UsageError: there is a device of that name already, or the same device under another name.
        """
        check_device_name(device.name)
        with _locked(self.workspace):
            document = _read(self.workspace / FILE_NAME)
            present = _parsed(self.workspace, document)
            present.check_new(device)
            if device.name in document.get("devices", {}):
                raise UsageError(
                    f"device {device.name!r}",
                    "is enrolled already",
                    hint=f"run `edgeq devices remove {device.name}` first, or choose another name",
                )
            return self._write(document, device)

    def replace(self, device: Device) -> Inventory:
        """Replace the device of the same name, or append it.

        Raises:
            UsageError: the same device is there under another name.
        """
        with _locked(self.workspace):
            document = _read(self.workspace / FILE_NAME)
            _parsed(self.workspace, document).check_new(device)
            return self._write(document, device)

    def check_new(self, device: Device) -> None:
        """Refuse a device that is in the inventory under another name.

        Its telemetry would go to whichever name collects first, and a rollout would count it twice.

        Raises:
            UsageError: it is; the message has its other name.
        """
        for other in self.devices:
            if other.name != device.name and device.device_id and other.device_id == device.device_id:
                raise UsageError(
                    f"device {device.name!r}",
                    f"is enrolled already as {other.name!r} (device id {device.device_id})",
                    hint=f"to rename it, run `edgeq devices remove {other.name}` first; a second agent on "
                    "the same machine needs a --home of its own; on a copied card, delete device.json in the "
                    "agent's folder",
                )

    def remove(self, name: str) -> Inventory:
        """Remove a device from the file.

        Raises:
            UnknownName: no such device.
        """
        with _locked(self.workspace):
            document = _read(self.workspace / FILE_NAME)
            present = _parsed(self.workspace, document)
            if not any(problem.name == name for problem in present.problems):
                present.get(name)
            del document["devices"][name]
            return self._save(document)

    def _names_of(self, selector: str) -> tuple[str, ...]:
        if selector == "all":
            if not self.devices:
                raise unknown("device", "all", (), hint=_ENROL)
            return self.names
        if not is_selection(selector):
            if "=" in selector:
                raise unknown("device", selector, (), hint=f"a label is selected by `label:{selector}`")
            return (self.get(selector).name,)
        key, _, value = selector[len("label:") :].partition("=")
        names = tuple(device.name for device in self.devices if device.labels.get(key) == value)
        if not names:
            labels = {f"label:{k}={v}" for device in self.devices for k, v in device.labels.items()}
            raise unknown("label", selector, labels, hint="`edgeq devices list` shows the labels")
        return names

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
        raise ConfigError(str(path), f"not UTF-8 text: {error.reason}") from error
    except TOMLKitError as error:
        raise ConfigError(str(path), f"not valid TOML: {error}") from error
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
        raise ConfigError(path, "`devices` is not a table", expected="[devices.NAME] tables")
    devices: list[Device] = []
    problems: list[TableProblem] = []
    for name, table in tables.items():
        where = f"{path}: devices.{name!r}"
        unusable = _problem_of_name(name)
        if unusable is not None:
            problems.append(TableProblem(name=name, text=f"{where} is left out: {unusable}", unused=True))
            continue
        device = parse_device(path, workspace, name, table)
        twice = _second_name(device, devices)
        if twice is not None:
            problems.append(TableProblem(name=name, text=f"{where}: {twice}", unused=False))
        devices.append(device)
    return Inventory(workspace=workspace, devices=tuple(devices), problems=tuple(problems))


def _problem_of_name(name: str) -> str | None:
    try:
        check_device_name(name)
    except UsageError as error:
        return f"{error.message}{f' ({error.hint})' if error.hint else ''}"
    return None


def _second_name(device: Device, devices: Sequence[Device]) -> str | None:
    """Return that a device is among the others already, by its id, or else by its address."""
    for other in devices:
        ids = (device.device_id, other.device_id)
        if ids[0] == ids[1] if None not in ids else _address(other) == _address(device):
            of = "device_id" if None not in ids else "address"
            return (
                f"it has the {of} of {other.name!r}; one device should have one name, because its telemetry "
                "goes to the name that collects first"
            )
    return None


def _address(device: Device) -> tuple[str, int, str, str, str | None]:
    return device.host.lower(), device.port, device.user, device.home, device.jump


def is_selection(text: str) -> bool:
    """Return whether a text is a selection (`label:KEY=VALUE`, `all`) and not a device name."""
    return text == "all" or text.startswith(_LABELS)


@contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    folder = workspace / ".edgeq"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "devices.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
