"""Read an Ansible inventory in YAML or JSON.

The nodes of the document are read, not its values: a port such as `1:20` stays a text, a tag such as `!vault`
constructs nothing, and a node that many aliases refer to is walked a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from edgeq.errors import ConfigError
from edgeq.fleet.hosts.ansible import Groups, Secret, Variables, expanded
from edgeq.fleet.hosts.entry import Entries, HostFile

_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN_TAGS = "tag:yaml.org,2002:"
_DEEPEST = 64
_MOST_NODES = 200_000
_PARTS = ("hosts", "children", "vars")


def read_yaml(path: Path, text: str, more: Variables) -> HostFile:
    """Return the hosts of an inventory.

    Args:
        more: the variables beside it.

    Raises:
        ConfigError: the file is not YAML, or its groups are not mappings.
    """
    root = _composed(path, text)
    return Entries(path).file() if root is None else _Reader(path).read(root, more)


def read_variables(path: Path, text: str) -> dict[str, str]:
    """Return the plain variables of a file that holds nothing else; a value of a vault is a `Secret`.

    Raises:
        ConfigError: the file is not YAML, or not a mapping.
    """
    root = _composed(path, text)
    return {} if root is None else _Reader(path).variables(root, 0)


def _composed(path: Path, text: str) -> yaml.Node | None:
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = str(path) if mark is None else f"{path.name}:{mark.line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())[:120]
        raise ConfigError(where, f"not valid YAML: {problem}") from error
    except RecursionError as error:
        raise ConfigError(str(path), "not an inventory: nested too deep") from error
    return root


class _Reader:
    """Walks the nodes of one document."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = Entries(path)
        self._groups = Groups()
        self._nodes = 0

    def read(self, root: yaml.Node, more: Variables) -> HostFile:
        """Return the hosts."""
        for name, key, node in self._pairs(root, 0, "an inventory: groups by name"):
            if name == "_meta":
                self._read_meta(node)
            else:
                self._group(name, key, node, 0)
        self._groups.add_to(self._entries, more)
        return self._entries.file()

    def _group(self, name: str, key: yaml.Node, node: yaml.Node, depth: int) -> None:
        group = self._groups.group(name)
        where = self._where(key)
        try:
            if isinstance(node, yaml.SequenceNode):  # as `ansible-inventory --list` may print a group
                self._read_hosts(name, node, depth + 1)
                return
            for part, part_key, content in self._pairs(node, depth, "a group: hosts, children, vars"):
                if part == "hosts":
                    self._read_hosts(name, content, depth + 1)
                elif part == "vars":
                    group.variables.update(self.variables(content, depth + 1))
                elif part == "children":
                    for child, child_key, inner in self._named(content, depth + 1):
                        group.children[child] = _line(child_key)
                        self._group(child, child_key, inner, depth + 2)
                else:
                    at = self._where(part_key)
                    raise ConfigError(
                        at, expected=f"one of {', '.join(_PARTS)} in a group", got=repr(part[:80])
                    )
        except _TooLarge:
            raise
        except ConfigError as error:
            self._entries.refuse(error.subject.partition(": ")[0] or where, error)

    def _read_hosts(self, group: str, node: yaml.Node, depth: int) -> None:
        for pattern, key, content in self._named(node, depth):
            where = self._where(key)
            try:
                variables = self.variables(content, depth + 1)
                for name in expanded(pattern, where):
                    self._groups.add_host(group, name, variables, _line(key))
            except _TooLarge:
                raise
            except ConfigError as error:
                self._entries.refuse(where, error, name=pattern)

    def _read_meta(self, node: yaml.Node) -> None:
        for part, _, content in self._pairs(node, 0, "a mapping"):
            for name, key, variables in (
                self._pairs(content, 1, "hosts by name") if part == "hostvars" else ()
            ):
                self._groups.add_host("ungrouped", name, self.variables(variables, 2), _line(key))

    def _named(self, node: yaml.Node, depth: int) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Yield the names of a mapping, a list or one text, each with its node and its content."""
        if isinstance(node, yaml.MappingNode) or node.tag == _NULL:
            yield from self._pairs(node, depth, "hosts by name")
            return
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for item in items:
            self._count(item, depth)
            yield self._text(item), item, yaml.ScalarNode(_NULL, "", item.start_mark, item.end_mark)

    def variables(self, node: yaml.Node, depth: int) -> dict[str, str]:
        """Return the plain values of a mapping."""
        variables = {}
        for name, _, value in self._pairs(node, depth, "variables by name"):
            # Lists and mappings are variables for Ansible's own tasks.
            if isinstance(value, yaml.ScalarNode) and value.tag != _NULL:
                plain = value.tag.startswith(_PLAIN_TAGS)
                variables[name] = value.value if plain else Secret(value.value)
        return variables

    def _pairs(
        self, node: yaml.Node, depth: int, expected: str
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Yield the keys of a mapping as texts, each with its node and its value; of nothing, none."""
        self._count(node, depth)
        if node.tag == _NULL:
            return
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(self._where(node), expected=expected, got=f"a {node.id}")
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    yield from self._pairs(merged, depth + 1, expected)
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            name = self._text(key)
            if name in lines:
                self._entries.notes.append(
                    f"{self._where(key)}: {name!r} is there twice, first in line {lines[name]}"
                )
            lines.setdefault(name, _line(key))
            yield name, key, value

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise ConfigError(self._where(node), expected="a name", got=f"a {node.id}")
        return str(node.value)

    def _count(self, node: yaml.Node, depth: int) -> None:
        self._nodes += 1
        if depth > _DEEPEST or self._nodes > _MOST_NODES:
            raise _TooLarge(self._where(node), "not an inventory: its aliases or groups have no end")

    def _where(self, node: yaml.Node) -> str:
        return self._entries.where(_line(node))


class _TooLarge(ConfigError):
    """The whole file is refused."""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
