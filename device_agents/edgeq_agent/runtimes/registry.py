"""The runtimes that were proved on this device: what each `runtime/<digest>/runtime.json` says."""

from __future__ import annotations

import os
import sys

from edgeq_agent import wire
from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.platforms import facts
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.storage import disk, files
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.runtime/1"
REFUSED_SCHEMA = "edgeq.runtime-refused/1"
RECORD = "runtime.json"
_REFUSED = "refused.json"
OWN = "python"  # stands for "the interpreter that runs the agent"


def read(home: Home, digest: str) -> Json | None:
    """Return a runtime's entry, `interpreter` as an absolute path; None when it is not usable (any more)."""
    try:
        entry = files.read_json(os.path.join(home.runtime(digest), RECORD))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        return None
    stored = str(entry["interpreter"])
    entry["interpreter"] = sys.executable if stored == OWN else os.path.join(home.runtime(digest), stored)
    # A system upgrade takes away the Python that a venv points to.
    return entry if os.access(entry["interpreter"], os.X_OK) else None


def of(home: Home, digest: str | None) -> Json | None:
    """Return a runtime's entry as `read` does; None also where nobody knows which it is."""
    return read(home, digest) if digest else None


def need(home: Home, digest: str) -> Json:
    """Return a runtime's entry.

    Raises:
        AgentError: EQ503, it is not here.
    """
    entry = read(home, digest)
    if entry is None:
        raise AgentError(
            UNSUPPORTED,
            "runtime " + digest[:12],
            "not on the device, or its interpreter is gone",
            hint="run `edgeq deploy` again: it installs the runtime",
        )
    return entry


def all_of(home: Home) -> list[Json]:
    """Return the entries of all usable runtimes."""
    found = (read(home, name) for name in sorted(os.listdir(home.runtimes)))
    return [entry for entry in found if entry]


def refuse(home: Home, digest: str, problem: str) -> None:
    """Remember that the wheels of a runtime do not start here; where an older build of it is, that stays."""
    folder = home.runtime(digest)
    if os.path.exists(os.path.join(folder, RECORD)):
        return
    disk.make_folders(folder)
    body = {"schema": REFUSED_SCHEMA, "digest": digest, "problem": problem, "system": _system()}
    files.write_json(os.path.join(folder, _REFUSED), body)


def refused(home: Home) -> list[Json]:
    """Return {digest, problem} of what did not start here, as long as the system is as it was then."""
    found = []
    system = _system()
    for name in sorted(os.listdir(home.runtimes)):
        try:
            body = files.read_json(os.path.join(home.runtimes, name, _REFUSED))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        if body.get("schema") == REFUSED_SCHEMA and body.get("system") == system:
            found.append({"digest": str(body["digest"]), "problem": str(body["problem"])})
    return found


def _system() -> str:
    """Return a name for what wheels depend on: another Python, C library or kernel is worth another try."""
    return wire.digest(
        {
            "python": list(sys.version_info[:3]),
            "libc": platforms.platform_of().libc()._asdict(),
            "packages": facts.packages(),
            "kernel": os.uname().release,
        }
    )
