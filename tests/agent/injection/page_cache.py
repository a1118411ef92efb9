"""Simulate what a power cut leaves: everything synced, and of the rest nothing, only names, or a part."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

# A file's bytes, a link's target, or None for a folder; by path below the root.
Tree = dict[str, bytes | str | None]

LOST = "lost"  # whatever was not synced is gone
TORN = "torn"  # names are there, contents that were not synced are empty
MIXED = "mixed"  # at random, name by name and file by file; the rest of the word is the seed


class _Folder:
    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.durable: dict[str, Any] = {}


class _Content:
    def __init__(self, data: bytes, durable: bytes) -> None:
        self.data = data
        self.durable = durable


class _Link:
    def __init__(self, target: str) -> None:
        self.target = target


class PageCache:
    """Tracks the operations of a `Disk` below `root` and which of them are durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[Any, _Content] = {}
        self._top = self._read(root)

    def _read(self, folder: Path) -> _Folder:
        node = _Folder()
        for entry in os.scandir(folder):
            if entry.is_symlink():
                node.names[entry.name] = _Link(os.readlink(entry.path))
            elif entry.is_dir():
                node.names[entry.name] = self._read(Path(entry.path))
            else:
                data = Path(entry.path).read_bytes()
                node.names[entry.name] = _Content(data, data)
        node.durable = dict(node.names)
        return node

    def _find(self, path: str) -> Any:
        node: Any = self._top
        for part in Path(path).relative_to(self.root).parts:
            node = node.names[part]
        return node

    def follow(self, operation: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Take note of an operation that was just done."""
        if operation in ("create", "append", "update"):
            folder, name = os.path.split(arguments[0])
            names = self._find(folder).names
            if name not in names:
                names[name] = _Content(b"", b"")
            names[name].data = Path(arguments[0]).read_bytes()
            self._open[result] = names[name]
        elif operation in ("write", "write_at", "truncate", "sync"):
            file = arguments[0]
            content = self._open.get(file) or self._find(file.path)
            content.data = Path(file.path).read_bytes()
            if operation == "sync":
                content.durable = content.data
        elif operation == "sync_folder":
            node = self._find(arguments[0])
            node.durable = dict(node.names)
        elif operation == "sync_all":
            self._sync_all(self._top)
        else:
            self._rename(operation, *arguments)

    def _rename(self, operation: str, first: Any, second: Any = None) -> None:
        def parent(path: str) -> tuple[dict[str, Any], str]:
            folder, name = os.path.split(path)
            return self._find(folder).names, name

        if operation == "replace":
            source, name = parent(first)
            target, new = parent(second)
            target[new] = source.pop(name)
        elif operation == "symlink":
            names, name = parent(second)
            names[name] = _Link(first)
        elif operation == "link":
            names, name = parent(second)
            names[name] = self._find(first)
        elif operation == "mkdir":
            names, name = parent(first)
            names[name] = _Folder()
        elif operation in ("unlink", "rmdir"):
            names, name = parent(first)
            del names[name]
        elif operation not in ("chmod", "set_group", "mark_used"):
            raise ValueError(operation)

    def _sync_all(self, folder: _Folder) -> None:
        folder.durable = dict(folder.names)
        for node in folder.names.values():
            if isinstance(node, _Folder):
                self._sync_all(node)
            elif isinstance(node, _Content):
                node.durable = node.data

    def after_cut(self, how: str, chance: random.Random) -> Tree:
        """Return the content of the disk after a power cut."""
        left: Tree = {}

        mixed = how.startswith(MIXED)

        def names_of(folder: _Folder) -> dict[str, Any]:
            if not mixed:
                return folder.names if how == TORN else folder.durable
            nodes = {}
            for name in sorted({*folder.names, *folder.durable}):
                node = (folder.names if chance.random() < 0.5 else folder.durable).get(name)
                if node is not None:
                    nodes[name] = node
            return nodes

        def walk(folder: _Folder, above: str) -> None:
            for name, node in sorted(names_of(folder).items()):
                path = f"{above}{name}"
                if isinstance(node, _Folder):
                    left[path] = None
                    walk(node, path + "/")
                elif isinstance(node, _Link):
                    left[path] = node.target
                else:
                    kept = mixed and chance.random() < 0.5
                    left[path] = node.data if kept else node.durable

        walk(self._top, "")
        return left


def read_tree(root: Path) -> Tree:
    """Return everything below a folder."""
    tree: Tree = {}
    for folder, names, files in os.walk(root):
        for name in sorted(names + files):
            path = Path(folder, name)
            inside = str(path.relative_to(root))
            if path.is_symlink():
                tree[inside] = os.readlink(path)
            else:
                tree[inside] = None if path.is_dir() else path.read_bytes()
    return tree


def write_tree(root: Path, tree: Tree) -> None:
    """Make a folder hold exactly this."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, what in sorted(tree.items()):
        target = root / path
        if what is None:
            target.mkdir(mode=0o700)
        elif isinstance(what, str):
            target.symlink_to(what)
        else:
            target.write_bytes(what)
            target.chmod(0o600)
