"""The runtimes that were proved on this device: what each `runtime/<digest>/runtime.json` says."""

from __future__ import annotations

import os
import sys

from edgeq_agent import files
from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.runtime/1"
OWN = "python"  # stands for "the interpreter that runs the agent"


def read(home: Home, digest: str) -> Json | None:
    """Return a runtime's entry, `interpreter` as an absolute path; None when it is not usable (any more)."""
    try:
        entry = files.read_json(os.path.join(home.runtime(digest), "runtime.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        return None
    stored = str(entry["interpreter"])
    entry["interpreter"] = sys.executable if stored == OWN else os.path.join(home.runtime(digest), stored)
    # A system upgrade takes away the Python that a venv points to.
    return entry if os.access(entry["interpreter"], os.X_OK) else None


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
