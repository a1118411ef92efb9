"""Homes with a damaged file, and the agent that runs on one in this process."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq_agent import __main__ as agent
from edgeq_agent import wire
from edgeq_agent.calls.stdin import Stdin
from edgeq_agent.storage import damage, disk
from edgeq_agent.telemetry import ddsketch
from edgeq_agent.telemetry.window import OutputCounts, Window

MODEL = "models/tiny/"


def newer(path: Path) -> None:
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            body = json.loads(path.read_text())
            path.write_text(json.dumps({**body, "schema": body["schema"].split("/")[0] + "/99", "new": {}}))
    elif path.suffix == ".db":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript("ALTER TABLE windows RENAME COLUMN body TO content; PRAGMA user_version=9")


def values_of_another_type(path: Path) -> None:
    """Turn every value of a JSON object into one of another type."""
    if path.suffix != ".json":
        path.write_bytes(b"7")
        return
    body = json.loads(path.read_text())
    other = {str: 7, int: "x", list: {"a": 1}, dict: [None], type(None): {}, bool: "no", float: []}
    path.write_text(json.dumps({k: v if k == "schema" else other[type(v)] for k, v in body.items()}))


def past_the_first_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage_it(path: Path) -> None:
        path.unlink()
        make(path)

    return damage_it


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("something")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 16),
    "a list": lambda path: path.write_bytes(b"[]"),
    "a number": lambda path: path.write_bytes(b"7"),
    "an empty object": lambda path: path.write_bytes(b"{}"),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "not finite": lambda path: path.write_bytes(b'{"schema": NaN, "state": 1e999, "device_id": "\\ud800"}'),
    "other types": values_of_another_type,
    "newer": newer,
    "pages": past_the_first_page,
    "a folder": in_its_place(a_folder),
    "a named pipe": in_its_place(os.mkfifo),
    "a link to itself": in_its_place(lambda path: path.symlink_to(path.name)),
    "unreadable": lambda path: path.chmod(0),
}


def window() -> Window:
    sketch = ddsketch.SketchBuilder()
    sketch.add(1000)
    return Window(1, 2, 1, {}, sketch.build(), (), OutputCounts((1, 0, 0), (0, 1)))


class Unsynced(disk.Disk):
    """A disk that saves the time of syncing: no power is cut here."""

    def perform(self, operation: str, arguments: tuple[Any, ...], action: Callable[[], Any]) -> Any:
        return None if operation.startswith("sync") else action()


def ask(home: Path, verb: str, request: Any = None, payload: bytes = b"") -> list[dict[str, Any]]:
    """Run a verb in this process and return its messages."""
    damage.take_reports()
    sink, inlet = io.BytesIO(), os.pipe()
    os.write(inlet[1], json.dumps(request or {}).encode() + b"\n" + payload)
    os.close(inlet[1])
    try:
        with disk.use(Unsynced()):
            agent.run([verb, "--home", str(home)], Stdin(inlet[0]), sink)
    finally:
        os.close(inlet[0])
    return [wire.parse(line) for line in sink.getvalue().splitlines()]


def as_an_ordinary_user(action: Callable[[], Any]) -> Any:
    """Run an action in a child that obeys the permissions of files even as root; return its JSON value."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _drop_privileges()
            with os.fdopen(write, "w") as stream:
                json.dump(action(), stream)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    return json.loads(text)


def _drop_privileges() -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None)
    override, search = 1, 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in (override, search):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, for the processes that it starts
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for index in range(3):
        sets[index] &= ~(1 << override | 1 << search)
    assert libc.capset(header, sets) == 0


def damaged(full: Path, folder: Path, name: str, damage_name: str) -> Path:
    """Return a copy of the home with one file damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(full, folder, symlinks=True)
    path = folder / name.format(
        runtime=os.listdir(folder / "runtime")[0], release=os.readlink(folder / MODEL / "current")[-64:]
    )
    if not path.is_symlink() and not path.exists():
        path.touch()
    DAMAGES[damage_name](path)
    return folder


def is_helpful(error: dict[str, Any], home: Path) -> bool:
    """Return whether an error says what to do, and is none of a bug."""
    return error["code"] not in ("EQ590", "EQ500") and bool(error["hint"])
