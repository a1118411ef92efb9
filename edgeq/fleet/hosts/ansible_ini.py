"""Read an Ansible inventory in its INI format."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from edgeq.errors import ConfigError
from edgeq.fleet.hosts.ansible import Groups, Variables, expanded
from edgeq.fleet.hosts.entry import Entries, HostFile

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:[#;].*)?")


def read_ini(path: Path, text: str, more: Variables) -> HostFile:
    """Return the hosts of an inventory; a line that is not understood is an entry of its own.

    Args:
        more: the variables beside it.
    """
    entries = Entries(path)
    groups = Groups()
    group, part = "ungrouped", "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line, where = raw.strip(), entries.where(number)
        if not line or line[0] in "#;":
            continue
        try:
            if section := _SECTION.fullmatch(line):
                group, part = section[1], section[2] or "hosts"
                if part not in ("hosts", "vars", "children"):
                    raise ConfigError(
                        where, expected="[GROUP], [GROUP:vars] or [GROUP:children]", got=repr(line)
                    )
                groups.group(group)
            elif part == "vars":
                name, value = _assignment(line, where)
                groups.group(group).variables[name] = value
            elif part == "children":
                groups.group(group).children[line.split()[0]] = number
                groups.group(line.split()[0])
            elif part == "hosts":
                _add_hosts(groups, group, line, number, where)
        except ConfigError as error:
            entries.refuse(where, error)
    groups.add_to(entries, more)
    return entries.file()


def _add_hosts(groups: Groups, group: str, line: str, number: int, where: str) -> None:
    try:
        pattern, *words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(where, f"cannot be parsed: {error}", got=repr(line[:80])) from error
    variables = dict(_assignment(word, where) for word in words)
    for name in expanded(pattern, where):
        groups.add_host(group, name, variables, number)


def _assignment(text: str, where: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise ConfigError(where, expected="VARIABLE=VALUE", got=repr(text[:80]))
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return name.strip(), value
