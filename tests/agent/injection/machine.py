"""A device inside the test's process, with a disk that can fail and a clock and processes under control."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from edgeq_agent import __main__ as agent
from edgeq_agent import errors, wire
from edgeq_agent.blobs import partial
from edgeq_agent.calls import stdin
from edgeq_agent.inference import job as jobs
from edgeq_agent.inference import model_process
from edgeq_agent.inference.job import Job
from edgeq_agent.storage import clock, disk, process_token

GROWS = {"create", "append", "update", "write", "write_at", "mkdir", "symlink", "link"}


def _half(data: bytes | bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


# The operations that a kill can leave half done, and how.
HALVES: dict[str, Callable[..., object]] = {
    "write": lambda file, data: os.write(file.descriptor, _half(data)),
    "write_at": lambda file, data, start: os.pwrite(file.descriptor, _half(data), start),
}


class PowerCut(BaseException):
    """The power is cut or the process is killed: no handler of the agent may continue."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The fault at operation number `at` (from 1).

    Attributes:
        error: the errno that the operation fails with; None cuts the power after it.
        lasting: whether the disk goes on refusing: a full one what needs room, another one everything.
        half: a write is cut in its middle.
    """

    at: int
    error: int | None = None
    lasting: bool = False
    half: bool = False


class FaultyDisk(disk.Disk):
    """Performs operations until the fault; a sync at one of the `deaf` places does nothing."""

    def __init__(self, cache: Any, fault: Fault | None, deaf: str | None = None) -> None:
        self.done: list[str] = []
        self.syncs: set[str] = set()
        self.hit: str | None = None
        self._cache = cache
        self._fault = fault
        self._deaf = deaf
        self._off = False

    def perform(self, operation: str, arguments: tuple[Any, ...], action: Callable[[], Any]) -> Any:
        if self._off:
            raise PowerCut
        fault, number = self._fault, len(self.done) + 1
        self.done.append(operation)
        if fault is not None and fault.error is not None and self._refuses(fault, number, operation):
            self.hit = self.hit or operation
            first = arguments[0] if arguments else self._cache.root
            path = first.path if isinstance(first, disk.File) else str(first)
            raise OSError(fault.error, os.strerror(fault.error), path)
        at_fault = fault is not None and fault.error is None and number == fault.at
        result = None
        if operation.startswith("sync"):
            self._sync(operation, arguments)
        else:
            if at_fault and fault is not None and fault.half and operation in HALVES:
                HALVES[operation](*arguments)
            else:
                result = action()
            self._cache.follow(operation, arguments, result)
        if at_fault:
            if isinstance(result, disk.File):
                result.close()
            self.hit, self._off = operation, True
            raise PowerCut
        return result

    def _refuses(self, fault: Fault, number: int, operation: str) -> bool:
        if number == fault.at:
            return fault.error != errno.ENOSPC or operation in GROWS | {"replace", "sync", "sync_folder"}
        return fault.lasting and number > fault.at and (fault.error != errno.ENOSPC or operation in GROWS)

    def _sync(self, operation: str, arguments: tuple[Any, ...]) -> None:
        where = f"{operation} in {_place(sys._getframe(2))}"  # noqa: SLF001 # its documented name
        self.syncs.add(where)
        if where != self._deaf:
            self._cache.follow(operation, arguments, None)


def _place(frame: FrameType | None) -> str:
    """Return the agent's calling function, skipping the modules that only pass the call on."""
    while frame is not None:
        name = Path(frame.f_code.co_filename).stem
        if name not in ("disk", "files", "machine") and "edgeq_agent" in frame.f_code.co_filename:
            return f"{name}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "nowhere"


class FakeClock(clock.Clock):
    """A clock that moves only when the test moves it."""

    def __init__(self) -> None:
        self.boot = 1
        self.seconds = 100.0
        self.wall = 1_600_000_000.0

    def boot_id(self) -> str:
        return f"{self.boot:08x}-0000-4000-8000-000000000000"

    def since_boot_ns(self) -> int:
        return int(self.seconds * 1e9)

    def wall_ns(self) -> int:
        return int(self.wall * 1e9)


class Machine:
    """One device: `call` runs a verb as a process of its own would."""

    def __init__(self, root: Path, cache: ModuleType, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.home = root / "home"
        self.clock = FakeClock()
        self.disk = FaultyDisk(None, None)
        self._life = 0
        self._cache_module = cache
        self._cache: Any = None
        start_time = process_token.start_time
        # The same names in every run, so that a disk that was found consistent is recognized.
        patch.setattr(partial, "new_owner", lambda: f"owner{self._life}")
        # A restart gives this process another start time, so its earlier files are those of a dead process.
        patch.setattr(
            process_token,
            "start_time",
            lambda pid: f"9{self._life}" if pid == os.getpid() else start_time(pid),
        )

    def load(self, tree: dict[str, Any], *, boot: int = 1, seconds: float = 100.0) -> None:
        """Start with this content of the disk, all of it durable."""
        self._cache_module.write_tree(self.root, tree)
        self.clock.boot, self.clock.seconds = boot, seconds
        self._life += 1
        self.attach()

    def attach(self, fault: Fault | None = None, deaf: str | None = None) -> None:
        """Make the present disk durable, and inject the fault from here on."""
        self._cache = self._cache_module.PageCache(self.root)
        self.disk = FaultyDisk(self._cache, fault, deaf)

    def repair(self) -> None:
        """Let the disk work again, without the writes that it lost."""
        self.attach()
        self._life += 1

    def restart(self, left: dict[str, Any] | None = None) -> None:
        """Start a new process; after a power cut, with the disk that it `left`, also a new boot."""
        self._life += 1
        if left is not None:
            self._cache_module.write_tree(self.root, left)
            self.clock.boot += 1
            self.clock.seconds = 5.0
        self.attach()

    def after_cut(self, how: str, chance: Any) -> dict[str, Any]:
        left: dict[str, Any] = self._cache.after_cut(how, chance)
        return left

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let code of the agent run on this machine."""
        before = os.umask(0o077)
        try:
            with disk.use(self.disk), clock.use(self.clock):
                yield
        finally:
            os.umask(before)

    def call(self, verb: str, payload: bytes = b"", **request: Any) -> dict[str, Any]:
        """Return the last message of a verb's answer."""
        if payload or verb == "put":
            request["payload_bytes"] = len(payload)
        descriptor = os.memfd_create("request")
        sink = io.BytesIO()
        try:
            os.write(descriptor, json.dumps(request).encode() + b"\n" + payload)
            os.lseek(descriptor, 0, os.SEEK_SET)
            with self.inside():
                agent.run([verb, "--home", str(self.home)], stdin.Stdin(descriptor), sink)
        finally:
            os.close(descriptor)
        return wire.parse(sink.getvalue().splitlines()[-1])


class Remembered:
    """The model's real process, run only once for each content of its files."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        self._known: dict[str, Any] = {}
        self._run = model_process.run
        patch.setattr(model_process, "run", self)

    def __call__(
        self, interpreter: str, job: Job, timeout_s: float, *rest: Any, **more: Any
    ) -> dict[str, Any]:
        where = _environment(interpreter)
        key = hashlib.sha256(
            json.dumps([where, _contents(jobs.to_json(job))], sort_keys=True).encode()
        ).hexdigest()
        if key not in self._known:
            self.runs += 1
            try:
                self._known[key] = self._run(interpreter, job, timeout_s, *rest, **more)
            except errors.AgentError as error:
                self._known[key] = error
        outcome = self._known[key]
        if isinstance(outcome, errors.AgentError):
            raise errors.AgentError.from_message(outcome.message()["error"])
        return json.loads(json.dumps(outcome))  # type: ignore[no-any-return]


def _environment(interpreter: str) -> Any:
    """Return the interpreter, or the content of its environment when the agent built it."""
    sites = sorted(Path(interpreter).parents[1].glob("lib/python*/site-packages"))
    if Path(interpreter).parents[1].name == ".venv" or not sites or "/home/" not in interpreter:
        return interpreter
    return [
        [str(path.relative_to(sites[0])), hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in sorted(sites[0].rglob("*.py"))
    ]


def make_venv(folder: str, shares: bool, timeout_s: float) -> None:
    """Make what `python -m venv` makes, through the simulated disk, so that faults can hit it."""
    site = Path(folder) / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    for path in [*reversed(site.relative_to(folder).parents), site.relative_to(folder), Path("bin")]:
        disk.mkdir(str(Path(folder) / path))
    disk.symlink(sys.executable, str(Path(folder) / "bin" / "python"))
    with disk.create(str(Path(folder) / "pyvenv.cfg")) as stream:
        # The paths of a real one depend on the version; the wheels of these tests need no other file.
        stream.write(b"home = " + os.path.dirname(os.path.realpath(sys.executable)).encode() + b"\n")


def _contents(job: dict[str, Any]) -> dict[str, Any]:
    """Return the job with each path replaced by the digest of its file."""
    contents = {name: _contents(value) if isinstance(value, dict) else value for name, value in job.items()}
    for name, value in job.items():
        if name.endswith("_path") and value is not None:
            path = Path(value)
            contents[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
    return contents
