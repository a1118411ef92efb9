"""Read the hosts of a file in any of the formats, detected or named, and choose some of them by patterns."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from edgeq.errors import ConfigError, UsageError
from edgeq.files import expand_user
from edgeq.fleet.hosts import csv_file
from edgeq.fleet.hosts.ansible_ini import read_ini
from edgeq.fleet.hosts.ansible_vars import VariableFolders
from edgeq.fleet.hosts.ansible_yaml import read_yaml
from edgeq.fleet.hosts.csv_file import read_csv
from edgeq.fleet.hosts.entry import HostFile
from edgeq.fleet.hosts.ssh_hosts import read_ssh_config
from edgeq.fleet.names import unknown
from edgeq.fleet.ssh.config import USUAL, load

_MOST_BYTES = 16 * 1024 * 1024
_PATTERN = frozenset("*?[")
_YAML_KEY = re.compile(r"""(?:---|[{]|["']?[\w.-]+["']?:(?:\s|$))""")
_HOST_LINE = re.compile(r"^\s*(?:Host|Match)[ \t=]+\S", re.IGNORECASE | re.MULTILINE)
_SECTION_LINE = re.compile(r"^\s*\[[^\]]+\]\s*(?:[#;].*)?$", re.MULTILINE)


class HostFormat(StrEnum):
    """Format of a file of hosts."""

    CSV = "csv"
    ANSIBLE_INI = "ansible-ini"
    ANSIBLE_YAML = "ansible-yaml"
    SSH_CONFIG = "ssh-config"


_BY_SUFFIX = {
    ".csv": HostFormat.CSV,
    ".tsv": HostFormat.CSV,
    ".ini": HostFormat.ANSIBLE_INI,
    ".yml": HostFormat.ANSIBLE_YAML,
    ".yaml": HostFormat.ANSIBLE_YAML,
    ".json": HostFormat.ANSIBLE_YAML,
}


def read_hosts(
    source: str, patterns: Sequence[str] = (), *, format: HostFormat | None = None
) -> tuple[HostFile, HostFormat]:
    """Return the hosts of a file whose names match one of the patterns, and the format of the file.

    Args:
        source: a file; or a pattern or a name of hosts in `~/.ssh/config`.
        patterns: such as `pi-*`; without one, all hosts.
        format: None detects it by the file's name and content.

    Raises:
        ConfigError: the file cannot be read, or is of another format.
        UnknownName: no host matches.
    """
    path = expand_user(source)
    if not path.exists():
        if not _names_hosts(source, format):
            raise ConfigError(
                source, "no such file", hint="name a file, or a pattern of hosts in ~/.ssh/config"
            )
        path, patterns, format = expand_user(USUAL), [source, *patterns], HostFormat.SSH_CONFIG
        if not path.exists():
            raise ConfigError(
                source, f"no such file, and there is no {USUAL} with hosts", hint="name a file of hosts"
            )
    if path.is_dir():
        raise ConfigError(source, expected="a file", got="a folder", hint="name the inventory file in it")
    text = _text(path)
    chosen = format or _detected(path, text)
    hosts = {
        HostFormat.CSV: lambda: read_csv(path, text),
        HostFormat.ANSIBLE_INI: lambda: read_ini(path, text, VariableFolders(path.parent)),
        HostFormat.ANSIBLE_YAML: lambda: read_yaml(path, text, VariableFolders(path.parent)),
        HostFormat.SSH_CONFIG: lambda: read_ssh_config(path),
    }[chosen]()
    if not hosts.entries and not hosts.bad:
        raise ConfigError(source, "names no host", hint="`edgeq devices import -h` shows the formats")
    return (_matching(hosts, patterns) if patterns else hosts), chosen


def _names_hosts(source: str, format: HostFormat | None) -> bool:
    if format not in (None, HostFormat.SSH_CONFIG) or "/" in source:
        return False
    return bool(_PATTERN & set(source)) or format is not None or source in load(USUAL).aliases


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(str(path), "too large for a file of hosts", expected=f"at most {_MOST_BYTES} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if data.startswith(b"#!"):
        raise ConfigError(
            str(path),
            "a program; edgeq runs none",
            hint="save its output: `ansible-inventory -i PROGRAM --list > hosts.json`",
        )
    # A line that is not UTF-8 is refused alone, where its value is read.
    return data.decode("utf-8-sig", "surrogateescape").replace("\0", "\ufffd")


def _detected(path: Path, text: str) -> HostFormat:
    if path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix.lower()]
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] not in "#;"]
    first = lines[0] if lines else ""
    if path.name in ("ssh_config", "config") and path.parent.name in (".ssh", "ssh"):
        return HostFormat.SSH_CONFIG
    if _SECTION_LINE.search(text) or "ansible_" in first:
        return HostFormat.ANSIBLE_INI
    if _YAML_KEY.match(first):
        return HostFormat.ANSIBLE_YAML
    if csv_file.is_header(first):
        return HostFormat.CSV
    if _HOST_LINE.search(text):
        return HostFormat.SSH_CONFIG
    raise ConfigError(
        str(path),
        expected="hosts as CSV, an Ansible inventory or an ssh configuration",
        got=repr(first[:80]) if first else "no host",
        hint="say which it is with --format",
    )


def _matching(hosts: HostFile, patterns: Sequence[str]) -> HostFile:
    for pattern in patterns:
        if not pattern:
            raise UsageError("PATTERN", expected="a name or a pattern such as 'pi-*'", got="an empty text")

    def matches(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    chosen = tuple(entry for entry in hosts.entries if matches(entry.name))
    bad = tuple(entry for entry in hosts.bad if matches(entry.name))
    if not chosen and not bad:
        names = [entry.name for entry in hosts.entries]
        hint = f"{hosts.path.name} names {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        raise unknown("host", " ".join(patterns), names, hint=hint)
    return dataclasses.replace(hosts, entries=chosen, bad=bad)
