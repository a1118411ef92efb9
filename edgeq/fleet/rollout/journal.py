"""The controller's journal: JSON lines chained by hash, synced to disk before anything acts on them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import RolloutDamaged, RolloutError
from edgeq.files import sync_folder
from edgeq_agent import wire

SCHEMA = "edgeq.rollout-journal/1"
FILE_NAME = "journal.jsonl"


class Journal:
    """A journal that is open for appending.

    A line is `{"n": 3, "prev": HASH, "time_ns": ..., "event": ..., ..., "hash": HASH}`: `hash` is the SHA-256
    of the line's canonical JSON without `hash`, `prev` is the hash of the line before. The first line also
    has `schema`. Times are informative only: no decision depends on them.
    """

    def __init__(self, path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
        self._path = path
        self._count = len(entries)
        self._last = str(entries[-1]["hash"]) if entries else ""

    @classmethod
    def open(cls, path: Path) -> tuple[Journal, list[dict[str, Any]]]:
        """Open a journal, creating it if needed, and return it with its entries; a torn last line is cut off.

        Raises:
            RolloutDamaged: a line other than the last was changed or lost.
        """
        entries, good_bytes = _parse(path)
        if path.exists() and path.stat().st_size > good_bytes:
            with path.open("r+b") as stream:
                stream.truncate(good_bytes)
                os.fsync(stream.fileno())
        return cls(path, entries), entries

    def append(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append events in order; they are on disk when this returns. Without events nothing is written.

        Raises:
            RolloutError: the disk refuses (EQ826); the earlier entries are intact.
        """
        if not events:
            return
        try:
            self.write(b"".join(self._line(event) for event in events))
        except OSError as error:
            raise RolloutError(
                str(self._path),
                f"cannot be written: {error.strerror}",
                hint="free disk space, then continue with `edgeq rollout resume ROLLOUT`",
                code="EQ826",
            ) from error

    def write(self, data: bytes) -> None:
        """Write lines at the end of the file, and sync it."""
        fresh = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            sync_folder(self._path.parent)

    def _line(self, event: Mapping[str, Any]) -> bytes:
        head = {"schema": SCHEMA} if self._count == 0 else {}
        body = {**head, **event, "n": self._count, "prev": self._last, "time_ns": time.time_ns()}
        self._last = line_hash(body)
        self._count += 1
        return wire.canonical({**body, "hash": self._last}) + b"\n"


def read(path: Path) -> list[dict[str, Any]]:
    """Return a journal's entries without changing the file; a torn last line is ignored.

    Raises:
        RolloutDamaged: a line other than the last was changed or lost.
    """
    return _parse(path)[0]


def read_bytes(path: Path) -> int:
    """Return the size of the complete lines, unchecked."""
    return path.read_bytes().rfind(b"\n") + 1


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    # A power cut may leave a partial line. Nothing acted on it: every action waits for the fsync.
    whole = data[: data.rfind(b"\n") + 1]
    entries: list[dict[str, Any]] = []
    last = ""
    for number, line in enumerate(whole.splitlines()):
        entry = _entry(path, number, line)
        body = {key: value for key, value in entry.items() if key != "hash"}
        if entry.get("n") != number or entry.get("prev") != last or entry.get("hash") != line_hash(body):
            raise _damaged(path, number, "its hash does not continue the line before")
        if number == 0 and entry.get("schema") != SCHEMA:
            raise _damaged(path, 0, f"expected {SCHEMA}, got {entry.get('schema')!r}")
        last = str(entry["hash"])
        entries.append(entry)
    return entries, len(whole)


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        raise _damaged(path, number, "not a journal entry")
    return entry


def _damaged(path: Path, number: int, problem: str) -> RolloutDamaged:
    return RolloutDamaged(f"{path}: line {number + 1}", problem)


def line_hash(body: Mapping[str, Any]) -> str:
    """Return the hash of a line; `body` is the line without its `hash`."""
    return hashlib.sha256(wire.canonical(dict(body))).hexdigest()
