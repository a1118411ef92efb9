"""Verb `prune`: remove what nothing refers to; by reference, never by age."""

from __future__ import annotations

import os

from edgeq_agent.activation import recovery, states
from edgeq_agent.calls import request as requests
from edgeq_agent.calls.call import Call
from edgeq_agent.releases import agent_files, retention
from edgeq_agent.releases.retention import References
from edgeq_agent.storage import disk, journal, lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


def prune(call: Call) -> Json:
    """Verb `prune`: remove releases, then blobs, then runtimes, then agents that nothing refers to.

    Each step leaves a device on which everything that is referred to is whole: a release leaves its place by
    one rename, and its blobs go only after that is durable. With `dry_run` nothing is removed.

    Raises:
        AgentError: EQ508 busy.
    """
    dry_run = requests.flag(call.request, "dry_run", False)
    with lock.hold(call.home):
        scratch.sweep(call.home)
        for model in sorted(os.listdir(call.home.models)):
            recovery.recover(call.home, model)
        found = retention.find(call.home)
        spare = _Spare(call.home, found)
        body = spare.body()
        if not dry_run and spare.paths():
            _remove(call.home, found, spare)
            counts = {name: len(names) for name, names in body["removed"].items()}
            body.update(journal.note(call.home, "prune", **counts))
        return dict(body, dry_run=dry_run, kept=found.told())


class _Spare:
    """What nothing refers to."""

    def __init__(self, home: Home, found: References) -> None:
        self._home = home
        self.releases = _others(home.releases, set(found.releases))
        self.blobs = _others(home.blobs, set(found.blobs))
        self.runtimes = _others(home.runtimes, set(found.runtimes))
        self.agents = agent_files.spare(home)

    def paths(self) -> list[str]:
        """Return the paths of all of it."""
        parts = (
            (self._home.releases, self.releases),
            (self._home.blobs, self.blobs),
            (self._home.runtimes, self.runtimes),
            (self._home.agents, self.agents),
        )
        return [os.path.join(folder, name) for folder, names in parts for name in names]

    def body(self) -> Json:
        """Return what the answer says of it; bytes as the file system counts them."""
        return {
            "removed": {
                "releases": self.releases,
                "blobs": self.blobs,
                "runtimes": self.runtimes,
                "agents": self.agents,
            },
            "freed_bytes": sum(_disk_bytes(path) for path in self.paths()),
        }


def _others(folder: str, kept: set[str]) -> list[str]:
    return [name for name in sorted(os.listdir(folder)) if name not in kept]


def _disk_bytes(path: str) -> int:
    status = os.lstat(path)
    total = status.st_blocks * 512
    if os.path.isdir(path) and not os.path.islink(path):
        total += sum(_disk_bytes(os.path.join(path, name)) for name in os.listdir(path))
    return total


def _remove(home: Home, found: References, spare: _Spare) -> None:
    _forget(home, found)
    _take_away(home, home.releases, spare.releases)
    for name in spare.blobs:
        disk.unlink(home.blob(name))
    if spare.blobs:
        disk.sync_folder(home.blobs)
    _take_away(home, home.runtimes, spare.runtimes)
    for name in spare.agents:
        disk.unlink(os.path.join(home.agents, name))
    if spare.agents:
        disk.sync_folder(home.agents)


def _forget(home: Home, found: References) -> None:
    """Let no history lead to a release that is about to go."""
    for model in sorted(os.listdir(home.models)):
        state = states.load(home, model)
        if set(state.history) - set(found.releases):
            state.trim(set(found.releases))


def _take_away(home: Home, folder: str, names: list[str]) -> None:
    """Move folders out of their place, make that durable, then empty them."""
    moved = []
    for name in names:
        aside = scratch.path(home, "pruned-" + name)
        disk.replace(os.path.join(folder, name), aside)
        moved.append(aside)
    if moved:
        disk.sync_folder(folder)
    for aside in moved:
        scratch.remove(aside)
