"""Records of finished search steps in the store, looked up by the digest of their inputs."""

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

# Incremented when a step of the search gives different results for the same inputs.
VERSION = 2
_ALL = 1_000_000


class Records:
    """Finished steps of one kind, by the digest of everything that decides their result."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._known: dict[str, Mapping[str, Any]] = {}
        for run in reversed(store.runs(kind, limit=_ALL)):
            if "key" in run.body:
                self._known[str(run.body["key"])] = run.body

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Return the record of a key, or None."""
        return self._known.get(key)

    def put(self, key: str, subject: str, body: Mapping[str, Any]) -> None:
        """Record a finished step."""
        full = {**body, "key": key}
        self._store.record_run(self._kind, subject, full)
        self._known[key] = full


def key_of(**parts: Any) -> str:
    """Return the digest of everything that decides a result, including the versions of edgeq and libraries.

    Args:
        parts: values of JSON types.
    """
    return str(wire.digest({"version": VERSION, "tools": _tools(), **parts}))


@cache
def _tools() -> dict[str, str]:
    versions = {"edgeq": edgeq.__version__}
    for name in ("ai-edge-litert", "litert-quantizer", "tensorflow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # a missing library does not affect the result
    return versions


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names."""
    if path.is_file():
        return sha256_of(path)
    total = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\0".encode())
    return total.hexdigest()
