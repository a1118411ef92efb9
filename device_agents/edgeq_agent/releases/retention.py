"""What the device still refers to: which release, blob and runtime is kept, and why."""

from __future__ import annotations

import os

from edgeq_agent.activation import candidates, states
from edgeq_agent.errors import AgentError
from edgeq_agent.releases import pins, release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import SplitUnusable
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


class References:
    """Names that are kept, each with the reasons."""

    def __init__(self) -> None:
        self.releases: dict[str, list[str]] = {}
        self.blobs: dict[str, list[str]] = {}
        self.runtimes: dict[str, list[str]] = {}

    def told(self) -> Json:
        """Return what an answer says of them."""
        return {"releases": self.releases, "blobs": len(self.blobs), "runtimes": self.runtimes}


def find(home: Home) -> References:
    """Return what is referred to.

    A model's releases are what serves, what a rollback leads to, what an activation or a soak leads to, what
    is staged, the arms of an A/B split, and what is pinned. Where a state cannot be read nobody knows what it
    referred to: all is kept then.
    """
    found = References()
    for model in sorted(os.listdir(home.models)):
        _of_model(home, model, found)
    for release in found.releases:
        _blobs_of_release(home, release, found)
    for digest in found.runtimes:
        _blobs_of_runtime(home, digest, found)
    return found


def _of_model(home: Home, model: str, found: References) -> None:
    state = states.load(home, model)
    pending = state.state in states.PENDING
    named = [
        ("serves", release_store.current(home, model)),
        ("rollback", state.previous),
        ("target", state.target if pending else None),
        ("fallback", state.fallback if pending else None),
    ]
    named += [("pinned", release) for release in pins.read(home, model)]
    entries = candidates.read(home, model)
    named += [("staged", release) for release in entries]
    named += [("split", release) for release in _arms(home, model)]
    if (
        candidates.damaged(home, model)
        or state.reason == states.DAMAGED
        or (state.state == states.NONE and release_store.current(home, model))
    ):
        named += [("state unreadable", release) for release in sorted(os.listdir(home.releases))]
        for digest in sorted(os.listdir(home.runtimes)):
            _note(found.runtimes, digest, model, "state unreadable")
    for reason, release in named:
        if release is None:
            continue
        _note(found.releases, release, model, reason)
        proved = entries[release].get("runtime") if release in entries else None
        for runtime in {state.runtimes.get(release), state.runtime_of(release), proved} - {None}:
            _note(found.runtimes, str(runtime), model, reason)
    if pending and state.target_runtime is not None:
        _note(found.runtimes, state.target_runtime, model, "target")


def _arms(home: Home, model: str) -> list[str]:
    """Return the releases that a split may mean; all where it cannot be read."""
    there = sorted(os.listdir(home.releases))
    try:
        split = ab_split.read(home, model)
    except SplitUnusable:
        return there
    # `current` and `previous` are kept as what they are; an id may be cut short.
    wanted = [arm.release for arm in split.arms] if split else []
    return [release for release in there if any(release.startswith(name) for name in wanted)]


def _note(kept: dict[str, list[str]], name: str, model: str, reason: str) -> None:
    reasons = kept.setdefault(name, [])
    told = f"{model}: {reason}"
    if told not in reasons:
        reasons.append(told)


def _blobs_of_release(home: Home, release: str, found: References) -> None:
    try:
        wanted = release_store.read(home, release)
    except AgentError:
        # Damaged: its links still say which blobs were meant, so that it can be made again.
        for sha256 in _links(home.release(release)):
            found.blobs.setdefault(sha256, []).append(release)
        return
    for sha256, _ in wanted.files.values():
        found.blobs.setdefault(sha256, []).append(release)


def _links(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [os.path.basename(os.readlink(path)) for path in paths if os.path.islink(path)]


def _blobs_of_runtime(home: Home, digest: str, found: References) -> None:
    for sha256 in registry.blobs(home, digest):
        found.blobs.setdefault(sha256, []).append(digest)
