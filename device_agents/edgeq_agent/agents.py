"""The agent's own files in `agent/`: named by their content; the ones that run and the newest stay."""

from __future__ import annotations

import os

from edgeq_agent import process
from edgeq_agent.home import Home


def spare(home: Home) -> list[str]:
    """Return the names of the agent files that can go: no process runs them, and a newer one is there.

    What placing an agent left behind (`.agent-*`) can go too, once no process has it open.
    """
    if not os.path.isdir(home.agents):
        return []
    names = sorted(os.listdir(home.agents))
    files = [name for name in names if name.startswith("edgeq-agent-") and name.endswith(".pyz")]
    placed = {name: os.stat(os.path.join(home.agents, name)).st_mtime_ns for name in files}
    # By the time that the file system wrote, not by the clock: a wrong one keeps another file, no more.
    newest = max(files, key=lambda name: (placed[name], name), default=None)
    running = process.commands()
    old = [name for name in files if name != newest and not any(name in words for words in running)]
    left = [
        name
        for name in names
        if name.startswith(".agent-") and not process.has_open(os.path.join(home.agents, name))
    ]
    return left + old
