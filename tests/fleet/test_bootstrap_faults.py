"""Placing the agent file: whatever stops it at any file operation leaves the old one or the new."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeq.fleet.agent import bootstrap
from tests.agent.injection import page_cache

OLD, NEW = b"the agent before " * 50, b"the agent after " * 5000
DIGEST = hashlib.sha256(NEW).hexdigest()
NAME = "edgeq-agent-new.pyz"


class Stop(BaseException):
    """The process is gone: no handler of the script may go on."""


class _File:
    """An open file, as the page cache knows it."""

    def __init__(self, path: str) -> None:
        self.path = path


class Faulty:
    """Stands for `os` and `tempfile` in the script: counts what changes files, and fails at one of them."""

    def __init__(self, root: Path, at: int, error: int | None) -> None:
        self.cache = page_cache.PageCache(root)
        self.done: list[str] = []
        self._at = at
        self._error = error
        self._off = False
        self._files: dict[int, _File] = {}

    def _do(self, operation: str, action: Any, *arguments: Any) -> Any:
        if self._off:
            raise Stop
        self.done.append(operation)
        here = len(self.done) == self._at
        if here and self._error is not None:
            raise OSError(self._error, os.strerror(self._error))
        result = action()
        self.cache.follow(operation, arguments, result)
        if here:
            self._off = True
            raise Stop
        return result

    def mkdir(self, path: str, mode: int) -> None:
        self._do("mkdir", lambda: os.mkdir(path, mode), path)

    def replace(self, source: str, target: str) -> None:
        self._do("replace", lambda: os.replace(source, target), source, target)

    def unlink(self, path: str) -> None:
        self._do("unlink", lambda: os.unlink(path), path)

    def chmod(self, path: str, mode: int) -> None:
        self._do("chmod", lambda: os.chmod(path, mode), path, mode)

    def mkstemp(self, prefix: str, dir: str) -> tuple[int, str]:
        # By turns, so that each run of a test does the same; what an earlier one left is in the way.
        free = (Path(dir) / f"{prefix}{number}" for number in range(100))
        path = str(next(path for path in free if not path.exists()))
        handles: list[int] = []

        def action() -> _File:
            handles.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._files[handles[0]] = _File(path)
            return self._files[handles[0]]

        self._do("create", action, path)
        return handles[0], path

    def open(self, path: str, flags: int) -> int:
        handle = os.open(path, flags)
        self._files[handle] = _File(path)
        return handle

    def close(self, handle: int) -> None:
        os.close(handle)

    def fsync(self, handle: int) -> None:
        file = self._files[handle]
        if Path(file.path).is_dir():
            self._do("sync_folder", lambda: None, file.path)
        else:
            self._do("sync", lambda: None, file)

    def fdopen(self, handle: int, mode: str) -> Any:
        return _Stream(self, handle)

    def write(self, handle: int, data: bytes) -> None:
        self._do("write", lambda: os.write(handle, data), self._files[handle], data)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _Stream:
    def __init__(self, faulty: Faulty, handle: int) -> None:
        self._faulty, self._handle = faulty, handle

    def write(self, data: bytes) -> None:
        # In two pieces, so that a stop can fall between.
        middle = len(data) // 2
        self._faulty.write(self._handle, data[:middle])
        self._faulty.write(self._handle, data[middle:])

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self._handle

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def place(root: Path, at: int = 0, error: int | None = None) -> tuple[dict[str, Any] | None, Faulty]:
    """Run the script; return its answer (None: it was stopped) and what it did."""
    faulty = Faulty(root, at, error)
    out = io.StringIO()
    system = SimpleNamespace(
        argv=["-c", "place", str(root / "home"), NAME, DIGEST, str(len(NEW))],
        stdin=SimpleNamespace(buffer=io.BytesIO(NEW)),
        stdout=out,
        version_info=sys.version_info,
        exit=_exit,
    )
    code = bootstrap.SCRIPT.replace("import errno, hashlib, json, os, sys, tempfile", "")
    names = {
        "os": faulty,
        "tempfile": faulty,
        "sys": system,
        "errno": errno,
        "hashlib": hashlib,
        "json": json,
    }
    try:
        exec(compile(code, "bootstrap", "exec"), names)  # noqa: S102 - our own script
    except Stop:
        return None, faulty
    except SystemExit:
        pass
    return json.loads(out.getvalue().splitlines()[-1]), faulty


def _exit(status: int) -> None:
    raise SystemExit(status)


def content(root: Path) -> bytes | None:
    path = root / "home" / "agent" / NAME
    return path.read_bytes() if path.exists() else None


@pytest.fixture(params=["new", "replaced"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> page_cache.Tree:
    if request.param == "new":
        return {}
    return {"home": None, "home/agent": None, f"home/agent/{NAME}": OLD}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def allowed(before: page_cache.Tree) -> tuple[bytes | None, bytes]:
    return (OLD if before else None), NEW


def count(root: Path, before: page_cache.Tree) -> int:
    page_cache.write_tree(root, before)
    answer, faulty = place(root)
    assert answer is not None
    assert answer["sha256"] == DIGEST
    assert content(root) == NEW
    return len(faulty.done)


def test_a_stop_at_every_operation_leaves_the_old_or_the_new(root: Path, before: page_cache.Tree) -> None:
    for at in range(1, count(root, before) + 1):
        page_cache.write_tree(root, before)
        place(root, at)
        assert content(root) in allowed(before), f"after operation {at}"
        answer, _ = place(root)
        assert answer is not None
        assert content(root) == NEW


@pytest.mark.parametrize("how", ["lost", "torn", "mixed 1", "mixed 2", "mixed 3"])
def test_a_power_cut_at_every_operation_too_and_what_was_answered_holds(
    root: Path, before: page_cache.Tree, how: str
) -> None:
    operations = count(root, before)
    for at in range(1, operations + 2):
        page_cache.write_tree(root, before)
        answer, faulty = place(root, at)
        page_cache.write_tree(root, faulty.cache.after_cut(how, random.Random(f"{how} {at}")))  # noqa: S311
        assert content(root) in allowed(before), f"after operation {at}"
        if answer is not None:
            assert content(root) == NEW, "the answer said that it is there"
        again, _ = place(root)
        assert again is not None
        assert content(root) == NEW


@pytest.mark.parametrize(("error", "word"), [(errno.ENOSPC, "space"), (errno.EROFS, "os"), (errno.EIO, "os")])
def test_a_disk_that_refuses_is_named_and_leaves_nothing_half_made(
    root: Path, before: page_cache.Tree, error: int, word: str
) -> None:
    for at in range(1, count(root, before) + 1):
        page_cache.write_tree(root, before)
        answer, faulty = place(root, at, error)
        assert answer is not None
        if answer["sha256"] != DIGEST:
            assert answer["error"] == word, faulty.done[at - 1]
        assert content(root) in allowed(before)
        left = list((root / "home" / "agent").glob(".agent-*")) if (root / "home" / "agent").exists() else []
        assert left == [], faulty.done[at - 1]


def test_a_script_that_syncs_nothing_is_seen(
    root: Path, before: page_cache.Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "fsync", lambda self, handle: None)
    page_cache.write_tree(root, before)
    answer, faulty = place(root)
    assert answer is not None
    assert answer["sha256"] == DIGEST
    page_cache.write_tree(root, faulty.cache.after_cut("lost", random.Random(0)))  # noqa: S311
    assert content(root) != NEW
