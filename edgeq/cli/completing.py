"""Names for shell completion: of devices, labels, models, releases, rollouts, experiments and keys.

They are read from the workspace's files with the standard library alone: completion must be fast, must change
nothing (the store would migrate an old file), and must print nothing where a file is missing or damaged.
"""

from __future__ import annotations

import os
import sqlite3
import tomllib
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import click

Names = Callable[[click.Context, click.Parameter, str], list[str]]


def _completing(read: Callable[[Path], Iterable[str]]) -> Names:
    """Return a completion by a function that reads a workspace's names."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            names = list(dict.fromkeys(map(str, read(_workspace(ctx)))))
        except (OSError, ValueError, TypeError, AttributeError, LookupError, sqlite3.Error):
            return []  # a person who presses TAB cannot use an error
        given = ctx.params.get(param.name or "")
        used = set(map(str, given)) if isinstance(given, tuple) else set()
        return [
            name for name in names if name.startswith(incomplete) and name.isprintable() and name not in used
        ]

    return complete


def _workspace(ctx: click.Context) -> Path:
    """Return the workspace that the command line names so far; the innermost option counts."""
    current: click.Context | None = ctx
    while current is not None:
        workspace = current.params.get("workspace")
        if workspace is not None and (current.parent is not None or Path(workspace) != Path()):
            return Path(workspace).expanduser()
        current = current.parent
    return Path(os.environ.get("EDGEQ_WORKSPACE") or ".").expanduser()


def _devices(workspace: Path) -> Iterable[str]:
    document = tomllib.loads((workspace / "devices.toml").read_text(encoding="utf-8"))
    return list(document["devices"]) if "devices" in document else ()


def _selectors(workspace: Path) -> Iterable[str]:
    names = list(_devices(workspace))
    document = tomllib.loads((workspace / "devices.toml").read_text(encoding="utf-8"))
    labels = {
        f"label:{key}={value}"
        for entry in document.get("devices", {}).values()
        for key, value in entry.get("labels", {}).items()
    }
    return [*names, *sorted(labels), *(["all"] if names else [])]


def _rollouts(workspace: Path) -> Iterable[str]:
    journals = (workspace / ".edgeq" / "rollouts").glob("*/journal.jsonl")
    newest_first = sorted(journals, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [path.parent.name for path in newest_first]


def _keys(workspace: Path) -> Iterable[str]:
    return sorted(path.stem for path in (workspace / ".edgeq" / "keys").glob("*.pub"))


def _models(workspace: Path) -> Iterable[str]:
    query = "SELECT DISTINCT json_extract(manifest, '$.model') FROM releases"
    return sorted(name for name in _column(workspace, query) if name)


def _releases(workspace: Path) -> Iterable[str]:
    query = "SELECT release FROM releases ORDER BY created_ns DESC"
    return [release[:12] for release in _column(workspace, query)]


def _experiments(workspace: Path) -> Iterable[str]:
    query = "SELECT experiment FROM experiments GROUP BY experiment ORDER BY MAX(id) DESC"
    return _column(workspace, query)


def _column(workspace: Path, query: str) -> list[str]:
    path = (workspace / ".edgeq" / "store.db").resolve()
    for access in ("mode=ro", "mode=ro&immutable=1"):  # the second where the folder cannot be written
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?{access}", uri=True, timeout=0.2)) as store:
                return [str(row[0]) for row in store.execute(query) if row[0] is not None]
        except sqlite3.OperationalError:
            continue
    return []


devices = _completing(_devices)
selectors = _completing(_selectors)
models = _completing(_models)
releases = _completing(_releases)
rollouts = _completing(_rollouts)
experiments = _completing(_experiments)
keys = _completing(_keys)
