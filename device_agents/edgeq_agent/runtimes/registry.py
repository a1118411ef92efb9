"""The runtimes on this device, `runtime/<digest>/`: read, install, and remember those that did not work."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.platforms import facts
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.runtimes.base import RuntimeEntry
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home

if TYPE_CHECKING:
    from edgeq_agent.inference.job import SelfTest
    from edgeq_agent.runtimes.base import RuntimeBackend

SCHEMA = "edgeq.runtime/1"
REFUSED_SCHEMA = "edgeq.runtime-refused/1"
ENTRY_FILE = "runtime.json"
_REFUSED_FILE = "refused.json"
# Stands in an entry for the interpreter that runs the agent.
AGENT_PYTHON = "python"


class RuntimeParts(NamedTuple):
    """The files of a runtime: what it was built from, and how its entry names its interpreter.

    Attributes:
        interpreter: relative to the runtime's folder, or `AGENT_PYTHON`.
        wheels: file names.
        sha256: of the wheels or the native program; these blobs stay as long as the runtime does.
        names: what to move into the runtime's folder.
    """

    interpreter: str
    wheels: list[str]
    sha256: list[str]
    names: list[str]


class RefusedRuntime(NamedTuple):
    """A runtime that did not pass its self-test here."""

    digest: str
    problem: str


def read(home: Home, digest: str) -> RuntimeBackend | None:
    """Return a runtime, or None when it is not on the device or no longer usable."""
    # Here, because a probe only needs the entries and must stay quick.
    from edgeq_agent.runtimes import native
    from edgeq_agent.runtimes.python import PythonBackend

    entry = _read_entry(home, digest)
    if entry is None:
        return None
    return native.NativeBackend(entry) if entry.module == native.MODULE else PythonBackend(entry)


def _read_entry(home: Home, digest: str) -> RuntimeEntry | None:
    fields = _read(home, digest, ENTRY_FILE, SCHEMA)
    if fields is None:
        return None
    try:
        stored = fields.text("interpreter")
        known, module, version = fields.sha256("digest"), fields.text("module"), fields.text("version")
    except AgentError:
        return None
    interpreter = sys.executable if stored == AGENT_PYTHON else os.path.join(home.runtime(digest), stored)
    # A system upgrade may remove the Python that a venv links to.
    return RuntimeEntry(known, interpreter, module, version) if os.access(interpreter, os.X_OK) else None


def _read(home: Home, digest: str, name: str, schema: str) -> Fields | None:
    """Return the fields of a file of a runtime; None when it is missing, damaged or of another schema."""
    try:
        fields = Fields(files.read_json(os.path.join(home.runtime(digest), name)))
        fields.one_of("schema", (schema,))
    except (FileNotFoundError, NotADirectoryError, ValueError, AgentError):
        return None
    return fields


def find(home: Home, digest: str | None) -> RuntimeBackend | None:
    """Return a runtime as `read` does; None also when its digest is not known."""
    return read(home, digest) if digest else None


def need(home: Home, digest: str) -> RuntimeBackend:
    """Return a runtime.

    Raises:
        AgentError: EQ503, it is not on the device or no longer usable.
    """
    backend = read(home, digest)
    if backend is None:
        raise AgentError(
            UNSUPPORTED,
            "runtime " + digest[:12],
            "not on the device, or its interpreter is gone",
            hint="run `edgeq deploy BUNDLE --to DEVICE` again: it installs the runtime",
        )
    return backend


def entries(home: Home) -> list[RuntimeEntry]:
    """Return the entries of all usable runtimes."""
    every = (_read_entry(home, name) for name in sorted(os.listdir(home.runtimes)))
    return [entry for entry in every if entry is not None]


def blobs(home: Home, digest: str) -> list[str]:
    """Return the SHA-256 of the blobs that a runtime was built from; none when it cannot be read."""
    fields = _read(home, digest, ENTRY_FILE, SCHEMA)
    try:
        return fields.list_of("wheel_sha256", Fields.sha256) if fields is not None else []
    except AgentError:
        return []  # as when it is not built, or damaged: the host sends its wheels again


def install(home: Home, digest: str, folder: str, self_test: SelfTest, parts: RuntimeParts) -> None:
    """Move a runtime that was built in `folder` to `runtime/<digest>/`; an earlier build works until then.

    Where the runtime has an entry already, a release may be running on what it names, and a failed self-test
    may only mean that the device was busy. So the new parts get unused names beside the old ones, the entry
    is replaced atomically, and only then are the old parts removed.
    """
    body = dict(
        self_test.to_json(),
        schema=SCHEMA,
        digest=digest,
        interpreter=parts.interpreter,
        wheels=parts.wheels,
        wheel_sha256=parts.sha256,
        created_ns=time.time_ns(),
    )
    target = home.runtime(digest)
    if not os.path.isfile(os.path.join(target, ENTRY_FILE)):
        files.write_json(os.path.join(folder, ENTRY_FILE), body, durable=False)
        # Hundreds of files: syncing everything once is faster than syncing each.
        disk.sync_all()
        scratch.remove(target)
        disk.replace(folder, target)
        disk.sync_folder(home.runtimes)
        return
    disk.sync_all()
    placed = {name: _unused_name(target, name) for name in parts.names}
    for name, unused in placed.items():
        disk.replace(os.path.join(folder, name), os.path.join(target, unused))
    disk.sync_folder(target)
    first, slash, rest = parts.interpreter.partition("/")
    body["interpreter"] = placed.get(first, first) + slash + rest
    files.write_json(os.path.join(target, ENTRY_FILE), body)
    for name in sorted(os.listdir(target)):
        if name != ENTRY_FILE and name not in placed.values():
            scratch.remove(os.path.join(target, name))


def _unused_name(folder: str, name: str) -> str:
    """Return the first of `name`, `name-1`, `name-2`... that does not exist."""
    number, candidate = 0, name
    while os.path.lexists(os.path.join(folder, candidate)):
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def refuse(home: Home, digest: str, problem: str) -> None:
    """Remember that a runtime does not start here; an earlier build of it stays as it is."""
    folder = home.runtime(digest)
    if os.path.exists(os.path.join(folder, ENTRY_FILE)):
        return
    disk.make_folders(folder)
    body = {"schema": REFUSED_SCHEMA, "digest": digest, "problem": problem, "system": _system_digest()}
    files.write_json(os.path.join(folder, _REFUSED_FILE), body)


def refused(home: Home) -> list[RefusedRuntime]:
    """Return the runtimes that did not start here, as long as the system has not changed since."""
    refusals = []
    system = _system_digest()
    for name in sorted(os.listdir(home.runtimes)):
        fields = _read(home, name, _REFUSED_FILE, REFUSED_SCHEMA)
        if fields is not None and fields.raw("system") == system:
            refusals.append(RefusedRuntime(str(fields.raw("digest")), str(fields.raw("problem"))))
    return refusals


def _system_digest() -> str:
    """Return a digest of what wheels depend on: with another Python, C library or kernel they may work."""
    return wire.digest(
        {
            "python": list(sys.version_info[:3]),
            "libc": platforms.platform_of().libc()._asdict(),
            "packages": facts.packages(),
            "kernel": os.uname().release,
        }
    )
