"""The search's memory: every finished piece of work is a record in the store, found again by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import edgeq
from edgeq.files import sha256_of
from edgeq.store import Store
from edgeq_agent import wire

# Raised when a step of the search gives other results for the same question.
VERSION = 2
_ALL = 1_000_000


class Records:
    """Finished pieces of one kind of work, by the digest of all that decides their result."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._known: dict[str, Mapping[str, Any]] = {}
        for run in reversed(store.runs(kind, limit=_ALL)):
            if "key" in run.body:
                self._known[str(run.body["key"])] = run.body

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Return what was recorded under a key."""
        return self._known.get(key)

    def put(self, key: str, subject: str, body: Mapping[str, Any]) -> None:
        """Record a finished piece of work."""
        full = {**body, "key": key}
        self._store.record_run(self._kind, subject, full)
        self._known[key] = full


def key_of(**parts: Any) -> str:
    """Return the digest of everything that decides a result, our own version and the libraries' among it.

    Args:
        parts: values of JSON types.
    """
    return str(wire.digest({"version": VERSION, "tools": _tools(), **parts}))


@cache
def _tools() -> dict[str, str]:
    found = {"edgeq": edgeq.__version__}
    for name in ("ai-edge-litert", "litert-quantizer", "tensorflow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # a library that is not installed decides nothing
    return found


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names."""
    if path.is_file():
        return sha256_of(path)
    total = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\0".encode())
    return total.hexdigest()
