"""Keep releases, blobs and runtimes by reference, never by age; remove what nothing refers to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from edgeq_agent.activation import candidates, state_record, states
from edgeq_agent.errors import AgentError
from edgeq_agent.releases import agent_files, pins, release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import SplitUnusable
from edgeq_agent.storage import disk, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


@dataclass(frozen=True)
class References:
    """The names that are referred to, each with the reasons."""

    releases: dict[str, list[str]] = field(default_factory=dict)
    blobs: dict[str, list[str]] = field(default_factory=dict)
    runtimes: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the references as a response has them."""
        return {"releases": self.releases, "blobs": len(self.blobs), "runtimes": self.runtimes}


def find_references(home: Home) -> References:
    """Return the references of all models.

    A model refers to the release that serves, the one that a rollback leads to, the target and fallback of an
    activation or a soak, its candidates, the arms of its split, and its pins. Where its state cannot be read,
    its references are unknown and everything is kept.
    """
    references = References()
    for model in home.model_names():
        _add_model(home, model, references)
    for release in references.releases:
        _add_blobs(home, release, references)
    for digest in references.runtimes:
        for sha256 in registry.blobs(home, digest):
            references.blobs.setdefault(sha256, []).append(digest)
    return references


def _add_model(home: Home, model: str, references: References) -> None:
    state = states.read(home, model)
    pending = state.state in states.PENDING
    known = candidates.read(home, model)
    current = release_store.current(home, model)
    named = [
        ("serves", current),
        ("rollback", state.previous),
        ("target", state.target if pending else None),
        ("fallback", state.fallback if pending else None),
    ]
    named += [("pinned", release) for release in pins.read(home, model)]
    named += [("staged", release) for release in known]
    named += [("split", release) for release in _arms(home, model)]
    unreadable = state.reason == states.DAMAGED or (state.state == state_record.NONE and current is not None)
    if unreadable or candidates.damaged(home, model):
        named += [("state unreadable", release) for release in sorted(os.listdir(home.releases))]
        for digest in sorted(os.listdir(home.runtimes)):
            _add(references.runtimes, digest, model, "state unreadable")
    for reason, release in named:
        if release is None:
            continue
        _add(references.releases, release, model, reason)
        checked_with = known[release].runtime if release in known else None
        for runtime in {state.runtimes.get(release), state.runtime_of(release), checked_with} - {None}:
            _add(references.runtimes, str(runtime), model, reason)
    if pending and state.target_runtime is not None:
        _add(references.runtimes, state.target_runtime, model, "target")


def _arms(home: Home, model: str) -> list[str]:
    """Return the releases that a split may mean; all when the split cannot be read."""
    releases = sorted(os.listdir(home.releases))
    try:
        split = ab_split.read(home, model)
    except SplitUnusable:
        return releases
    # An arm may name the beginning of an id. `current` and `previous` are kept for their own reasons.
    names = [arm.release for arm in split.arms] if split else []
    return [release for release in releases if any(release.startswith(name) for name in names)]


def _add(kept: dict[str, list[str]], name: str, model: str, reason: str) -> None:
    reasons = kept.setdefault(name, [])
    text = f"{model}: {reason}"
    if text not in reasons:
        reasons.append(text)


def _add_blobs(home: Home, release: str, references: References) -> None:
    try:
        blobs = [entry.sha256 for entry in release_store.read(home, release).files.values()]
    except AgentError:
        # Damaged: its links still say which blobs it needs, so that it can be built again.
        blobs = _linked_blobs(home.release(release))
    for sha256 in blobs:
        references.blobs.setdefault(sha256, []).append(release)


def _linked_blobs(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [os.path.basename(os.readlink(path)) for path in paths if os.path.islink(path)]


@dataclass(frozen=True)
class Unreferenced:
    """The names that nothing refers to.

    Attributes:
        freed_bytes: the space that it takes, as the file system counts it.
    """

    releases: list[str]
    blobs: list[str]
    runtimes: list[str]
    agents: list[str]
    freed_bytes: int

    def __bool__(self) -> bool:
        return bool(self.releases or self.blobs or self.runtimes or self.agents)

    def counts(self) -> dict[str, int]:
        """Return how many there are of each kind."""
        return {name: len(names) for name, names in self._names().items()}

    def to_json(self) -> Json:
        """Return it as a response has it."""
        return {"removed": self._names(), "freed_bytes": self.freed_bytes}

    def _names(self) -> dict[str, list[str]]:
        return {
            "releases": self.releases,
            "blobs": self.blobs,
            "runtimes": self.runtimes,
            "agents": self.agents,
        }


def find_unreferenced(home: Home, references: References) -> Unreferenced:
    """Return everything on the device that is not among the references."""
    releases = _others(home.releases, references.releases)
    blobs = _others(home.blobs, references.blobs)
    runtimes = _others(home.runtimes, references.runtimes)
    agents = agent_files.removable(home)
    folders = (
        (home.releases, releases),
        (home.blobs, blobs),
        (home.runtimes, runtimes),
        (home.agents, agents),
    )
    size_bytes = sum(_disk_bytes(os.path.join(folder, name)) for folder, names in folders for name in names)
    return Unreferenced(releases, blobs, runtimes, agents, size_bytes)


def _others(folder: str, kept: dict[str, list[str]]) -> list[str]:
    return [name for name in sorted(os.listdir(folder)) if name not in kept]


def _disk_bytes(path: str) -> int:
    status = os.lstat(path)
    size_bytes = status.st_blocks * 512
    if os.path.isdir(path) and not os.path.islink(path):
        size_bytes += sum(_disk_bytes(os.path.join(path, name)) for name in os.listdir(path))
    return size_bytes


def remove(home: Home, references: References, unreferenced: Unreferenced) -> None:
    """Remove releases, then blobs, then runtimes, then agent files that nothing refers to (lock held).

    After each step everything that is referred to is complete: a release disappears with one rename, and its
    blobs are removed only after that is durable.
    """
    _trim_histories(home, set(references.releases))
    _remove_folders(home, home.releases, unreferenced.releases)
    for name in unreferenced.blobs:
        scratch.remove(home.blob(name))
    if unreferenced.blobs:
        disk.sync_folder(home.blobs)
    _remove_folders(home, home.runtimes, unreferenced.runtimes)
    for name in unreferenced.agents:
        disk.unlink(os.path.join(home.agents, name))
    if unreferenced.agents:
        disk.sync_folder(home.agents)


def _trim_histories(home: Home, kept: set[str]) -> None:
    """Drop releases that are about to be removed from every history, so that no rollback leads to them."""
    for model in home.model_names():
        state = states.load(home, model)
        if set(state.record.history) - kept:
            state.trim(kept)


def _remove_folders(home: Home, folder: str, names: list[str]) -> None:
    """Move folders aside, make that durable, then delete them."""
    moved = []
    for name in names:
        aside = scratch.path(home, "pruned-" + name)
        disk.replace(os.path.join(folder, name), aside)
        moved.append(aside)
    if moved:
        disk.sync_folder(folder)
    for aside in moved:
        scratch.remove(aside)
