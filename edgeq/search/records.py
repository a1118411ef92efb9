"""Records of finished search steps in the store, looked up by the digest of their inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import edgeq
from edgeq.files import sha256_of
from edgeq.store import Store
from edgeq.store.records import Body
from edgeq_agent import wire

Result = TypeVar("Result")

# Incremented when a step of the search gives different results for the same inputs.
VERSION = 2
_ALL = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKind(Generic[Result]):
    """A kind of step: what its runs are called in the store, and how its result becomes the body of a run.

    Attributes:
        name: of the runs.
        read: returns the result that `write` wrote.
        write: returns a result in JSON types.
    """

    name: str
    read: Callable[[Body], Result]
    write: Callable[[Result], Body]


class Records(Generic[Result]):
    """Finished steps of one kind, by the digest of everything that decides their result."""

    def __init__(self, store: Store, kind: StepKind[Result]) -> None:
        self._store = store
        self._kind = kind
        self._known: dict[str, Body] = {}
        for run in reversed(store.runs(kind.name, limit=_ALL)):
            if "key" in run.body:
                self._known[str(run.body["key"])] = run.body

    def find(self, key: str) -> Result | None:
        """Return the result of a key, or None."""
        body = self._known.get(key)
        return None if body is None else self._kind.read(body)

    def put(self, key: str, subject: str, result: Result) -> None:
        """Record a finished step."""
        body = {**self._kind.write(result), "key": key}
        self._store.record_run(self._kind.name, subject, body)
        self._known[key] = body


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
