"""Variables of an Ansible inventory in the folders `group_vars` and `host_vars` beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.errors import ConfigError
from edgeq.fleet.hosts.ansible_yaml import read_variables
from edgeq.fleet.hosts.entry import Entries

_SUFFIXES = ("", ".yml", ".yaml", ".json")
_MOST_BYTES = 1024 * 1024
_MOST_FILES = 100
_VAULT = "$ANSIBLE_VAULT"


class VariableFolders:
    """The variables of groups and hosts; each file is read once, when a host needs it.

    A file of a vault is a note, one that is not YAML an entry of its own; the hosts go on without either.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def of_group(self, name: str, entries: Entries) -> dict[str, str]:
        """Return the variables of a group by name."""
        return self._of("group_vars", name, entries)

    def of_host(self, name: str, entries: Entries) -> dict[str, str]:
        """Return the variables of a host by name."""
        return self._of("host_vars", name, entries)

    def _of(self, folder: str, name: str, entries: Entries) -> dict[str, str]:
        if (folder, name) not in self._known:
            variables: dict[str, str] = {}
            for path in self._files(folder, name):
                variables.update(self._read(path, entries))
            self._known[folder, name] = variables
        return self._known[folder, name]

    def _files(self, folder: str, name: str) -> Iterator[Path]:
        """Yield the files of a name: the file itself, with a suffix or without, or those in its folder."""
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            return
        for suffix in _SUFFIXES:
            path = self._folder / folder / (name + suffix)
            try:
                if path.is_file():
                    yield path
                elif not suffix and path.is_dir():
                    inside = [one for one in path.iterdir() if one.suffix in _SUFFIXES and one.is_file()]
                    yield from sorted(one for one in inside if one.name[0] != ".")[:_MOST_FILES]
            except OSError:  # a name that is too long for a file, or a folder of another user
                continue

    def _read(self, path: Path, entries: Entries) -> dict[str, str]:
        where = str(path.relative_to(self._folder))
        try:
            with path.open("rb") as stream:
                data = stream.read(_MOST_BYTES + 1)
        except OSError as error:
            entries.notes.append(f"{where} is not read: {error.strerror}")
            return {}
        text = data.decode("utf-8-sig", "surrogateescape").replace("\0", "\ufffd")
        if text.startswith(_VAULT):
            entries.notes.append(f"{where} is not read: it is encrypted by ansible-vault")
            return {}
        try:
            if len(data) > _MOST_BYTES:
                raise ConfigError(where, "too large for variables", expected=f"at most {_MOST_BYTES} bytes")
            return read_variables(Path(where), text)
        except ConfigError as error:
            entries.refuse(where, error)
            return {}
