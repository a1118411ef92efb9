"""Hosts of an Ansible inventory: groups become labels, the variables of the connection become settings.

No part of Ansible runs: what a template, a vault or a plugin would compute is a line that says so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from edgeq.errors import ConfigError, EdgeqError
from edgeq.fleet.hosts.entry import MOST_HOSTS, Entries, HostEntry, make_entry
from edgeq.fleet.names import check_name

_RANGE = re.compile(r"\[(?:([0-9]{1,9}):([0-9]{1,9})|([A-Za-z]):([A-Za-z]))(?::([0-9]{1,9}))?\]")
_OPTION = re.compile(r"^\s*([A-Za-z]+)\s*[\s=]\s*")
_IMPLICIT = ("all", "ungrouped")
_SSH = ("ssh", "smart", "paramiko", "paramiko_ssh", "openssh")
_DEEPEST = 64


class Secret(str):
    """A value that only Ansible can read, such as one of a vault."""


@dataclass(kw_only=True)
class Group:
    """A group while the inventory is read; `hosts` and `children` map a name to its line."""

    hosts: dict[str, int] = field(default_factory=dict)
    children: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


class Variables(Protocol):
    """Variables from beside the inventory, by name; what is wrong with them goes to the entries."""

    def of_group(self, name: str, entries: Entries) -> Mapping[str, str]:
        """Return those of a group."""
        ...

    def of_host(self, name: str, entries: Entries) -> Mapping[str, str]:
        """Return those of a host."""
        ...


class Groups:
    """The groups and the variables of the hosts of one inventory."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._lines: dict[str, int] = {}
        self._variables: dict[str, dict[str, str]] = {}

    def group(self, name: str) -> Group:
        """Return a group; it may be new."""
        return self._groups.setdefault(name, Group())

    def add_host(self, group: str, name: str, variables: Mapping[str, str], line: int) -> None:
        """Add a host to a group; a host may be in several."""
        self.group(group).hosts.setdefault(name, line)
        self._lines.setdefault(name, line)
        self._variables.setdefault(name, {}).update(variables)

    def add_to(self, entries: Entries, more: Variables) -> None:
        """Add every host, with the variables and labels of its groups, to the entries of a file."""
        folder = entries.path.parent
        parents = self._parents()
        depths = {name: _depth(name, parents) for name in self._groups}
        for name, depth in depths.items():
            if depth > _DEEPEST:
                line = max(self._groups[name].children.values(), default=1)
                where = entries.where(line)
                entries.refuse(where, ConfigError(where, f"the group {name!r} is its own parent"))
        of_host: dict[str, list[str]] = {}
        for group, content in self._groups.items():
            for host in content.hosts:
                of_host.setdefault(host, []).append(group)
        for name, line in self._lines.items():
            listed = of_host[name]
            groups = sorted(_with_parents(listed, parents) | {"all"}, key=lambda g: (depths.get(g, 0), g))
            variables: dict[str, str] = {}
            for group in groups:
                variables.update(self._groups[group].variables if group in self._groups else {})
            # In Ansible's order: what is beside the inventory counts more than what is in it.
            for group in ["all", *(one for one in groups if one != "all")]:
                variables.update(more.of_group(group, entries))
            variables.update(self._variables[name])
            variables.update(more.of_host(name, entries))
            where = entries.where(line)
            entries.add(where, name, partial(_entry, name, where, groups, listed, variables, folder))

    def _parents(self) -> dict[str, set[str]]:
        parents: dict[str, set[str]] = {}
        for name, group in self._groups.items():
            for child in group.children:
                parents.setdefault(child, set()).add(name)
        return parents


def expanded(pattern: str, where: str) -> list[str]:
    """Return the names of a pattern: `pi[01:03].lab` is pi01.lab, pi02.lab and pi03.lab.

    Raises:
        ConfigError: it names too many hosts, or ends before it begins.
    """
    names = [pattern]
    while any(_RANGE.search(name) for name in names):
        every = (one for name in names for one in _first_range(name, where))
        # Of two ranges, each within the limit, the product may be beyond any memory.
        names = list(islice(every, MOST_HOSTS + 1))
        if len(names) > MOST_HOSTS:
            raise ConfigError(
                where, "names too many hosts", expected=f"at most {MOST_HOSTS}", got=pattern[:80]
            )
    return names


def _first_range(name: str, where: str) -> Iterator[str]:
    match = _RANGE.search(name)
    if match is None:
        yield name
        return
    low, high, first, last, step = match.groups()
    begin, end = (int(low), int(high)) if low else (ord(first), ord(last))
    if begin > end or (end - begin) // max(1, int(step or 1)) >= MOST_HOSTS or int(step or 1) == 0:
        raise ConfigError(where, expected=f"a range of 1 to {MOST_HOSTS} hosts", got=repr(match[0][:80]))
    for number in range(begin, end + 1, int(step or 1)):
        text = str(number).zfill(len(low)) if low else chr(number)
        yield name[: match.start()] + text + name[match.end() :]


def _with_parents(groups: list[str], parents: Mapping[str, set[str]]) -> set[str]:
    known: set[str] = set()
    left = list(groups)
    while left:
        group = left.pop()
        if group not in known:
            known.add(group)
            left.extend(parents.get(group, ()))
    return known


def _depth(name: str, parents: Mapping[str, set[str]]) -> int:
    """Return how many groups are above a group; more than _DEEPEST in a circle."""
    depth, level = 0, {name}
    while level := {parent for one in level for parent in parents.get(one, ())}:
        depth += 1
        if depth > _DEEPEST:
            break
    return depth


def _entry(
    name: str,
    where: str,
    groups: list[str],
    listed: list[str],
    variables: Mapping[str, str],
    folder: Path,
) -> HostEntry:
    def value(*names: str) -> str | None:
        for one in names:
            text = variables.get(one)
            if text:
                return _readable(where, one, text)
        return None

    connection = value("ansible_connection")
    if connection is not None and connection not in _SSH:
        raise ConfigError(
            f"{where}: ansible_connection",
            expected="ssh; edgeq reaches devices over SSH only",
            got=connection,
        )
    notes = []
    if any(variables.get(f"ansible_{one}") for one in ("password", "ssh_pass", "ssh_password")):
        notes.append("its password is not read: edgeq logs in with keys")
    labels, bad_labels = _labels(groups, listed)
    if bad_labels:
        notes.append(f"groups whose names cannot be labels: {', '.join(bad_labels)}")
    python = value("ansible_python_interpreter")
    host = value("ansible_host", "ansible_ssh_host")
    port = value("ansible_port", "ansible_ssh_port")
    if host is not None and port is None and (match := re.search(r"(?<=[^:]):(\d+)$", name)):
        port = match[1]  # a port beside the name also holds for `ansible_host`
    return make_entry(
        where=where,
        name=name if host is None else re.sub(r"(?<=[^:]):\d+$", "", name),
        host=host,
        port=port,
        user=value("ansible_user", "ansible_ssh_user"),
        kind=value("edgeq_kind"),
        labels=labels,
        identity=value("ansible_ssh_private_key_file", "ansible_private_key_file"),
        python=None if python is None or python.startswith("auto") else python,
        home=value("edgeq_home"),
        jump=_jump(where, value),
        transport=value("edgeq_transport"),
        folder=folder,
        notes=tuple(notes),
    )


def _readable(where: str, name: str, text: str) -> str:
    if isinstance(text, Secret) or "{{" in text or "{%" in text:
        raise ConfigError(
            f"{where}: {name}",
            "only Ansible can compute it",
            expected="a plain value",
            got="a template" if "{" in text else "a secret of a vault",
            hint="write the value itself into the inventory, or import this host from a CSV file",
        )
    return text


def _labels(groups: list[str], listed: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return `GROUP=yes` for each group, `group=GROUP` if only one lists the host, and the names left."""
    labels, bad = {}, []
    for group in groups:
        if group in _IMPLICIT:
            continue
        try:
            labels[check_name(group, what="label")] = "yes"
        except EdgeqError:
            bad.append(group)
    direct = [group for group in listed if group not in (*_IMPLICIT, *bad)]
    if len(direct) == 1 and "group" not in labels:
        labels["group"] = direct[0]
    return labels, bad


def _jump(where: str, value: object) -> str | None:
    for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args"):
        text = value(name)  # type: ignore[operator]
        if text is None:
            continue
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ConfigError(
                f"{where}: {name}", f"cannot be parsed: {error}", got=repr(text[:80])
            ) from error
        options = dict(_ssh_options(words))
        if "proxyjump" in options:
            return options["proxyjump"]
        if "proxycommand" in options:
            return _jump_of_command(f"{where}: {name}", options["proxycommand"])
    return None


def _ssh_options(words: list[str]) -> Iterator[tuple[str, str]]:
    left = iter(words)
    for word in left:
        if word.startswith("-J"):
            yield "proxyjump", word[2:] or next(left, "")
        elif word.startswith("-o"):
            key, _, text = _OPTION.sub(r"\1=", word[2:] or next(left, "")).partition("=")
            yield key.lower(), text


def _jump_of_command(where: str, command: str) -> str:
    """Return the jump host of the usual `ssh -W %h:%p HOST`.

    Raises:
        ConfigError: it is another command.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    forwards, port, hosts = False, "", []
    left = iter(words[1:])
    for word in left:
        if word == "-W" or word.startswith("-W"):
            forwards = (word[2:] or next(left, "")) in ("%h:%p", "[%h]:%p")
        elif word == "-p":
            port = next(left, "")
        elif word in ("-o", "-i", "-l", "-F"):
            next(left, "")
        elif not word.startswith("-"):
            hosts.append(word)
    if not forwards or len(hosts) != 1 or not words[0].endswith("ssh"):
        raise ConfigError(
            where,
            "a ProxyCommand that edgeq does not run",
            expected="ProxyJump, or `ssh -W %h:%p HOST`",
            got=repr(command[:80]),
        )
    return hosts[0] + (f":{port}" if port else "")
