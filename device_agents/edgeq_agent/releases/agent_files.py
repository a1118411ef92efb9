"""The agent's own files in `agent/`: named by their content; the ones that run and the newest stay."""

from __future__ import annotations

import os

from edgeq_agent.storage import process_token
from edgeq_agent.storage.home import Home


def spare(home: Home) -> list[str]:
    """Return the names of the agent files that can go: no process runs them, and a newer one is there.

    What placing an agent left behind (`.agent-*`) can go too, once no process has it open.
    """
    if not os.path.isdir(home.agents):
        return []
    names = sorted(os.listdir(home.agents))
    last = newest(home)
    running = process_token.commands()
    old = [name for name in _files(names) if name != last and not any(name in words for words in running)]
    left = [
        name
        for name in names
        if name.startswith(".agent-") and not process_token.has_open(os.path.join(home.agents, name))
    ]
    return left + old


def newest(home: Home) -> str | None:
    """Return the name of the agent file that was placed last; None where there is none.

    By the time that the file system wrote, not by the clock: a wrong one keeps another file, no more.
    """
    if not os.path.isdir(home.agents):
        return None
    files = _files(os.listdir(home.agents))
    placed = {name: os.stat(os.path.join(home.agents, name)).st_mtime_ns for name in files}
    return max(files, key=lambda name: (placed[name], name), default=None)


def _files(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("edgeq-agent-") and name.endswith(".pyz")]
