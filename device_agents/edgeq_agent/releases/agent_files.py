"""The agent's own files in `agent/`: find those that no process runs and that a newer one has replaced."""

from __future__ import annotations

import os

from edgeq_agent.storage import process_token
from edgeq_agent.storage.home import Home

# A partial file of an interrupted installation.
_PARTIAL = ".agent-"


def removable(home: Home) -> list[str]:
    """Return the names of the agent files that can be removed.

    A file can be removed when no process runs it and a newer one exists. What an interrupted installation
    left (`.agent-*`) can be removed once no process has it open.
    """
    if not os.path.isdir(home.agents):
        return []
    names = sorted(os.listdir(home.agents))
    last = newest(home)
    commands = process_token.commands()
    old = [name for name in _agents(names) if name != last and not any(name in words for words in commands)]
    partial = [
        name
        for name in names
        if name.startswith(_PARTIAL) and not process_token.has_open(os.path.join(home.agents, name))
    ]
    return partial + old


def newest(home: Home) -> str | None:
    """Return the name of the agent file that was installed last, or None.

    The file system's modification times decide; a wrong clock only keeps another file.
    """
    if not os.path.isdir(home.agents):
        return None
    names = _agents(os.listdir(home.agents))
    modified_ns = {name: os.stat(os.path.join(home.agents, name)).st_mtime_ns for name in names}
    return max(names, key=lambda name: (modified_ns[name], name), default=None)


def _agents(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("edgeq-agent-") and name.endswith(".pyz")]
