"""Pinned releases: they stay on the device until they are unpinned."""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeq_agent.calls.fields import bad
from edgeq_agent.releases import release_store
from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home

SCHEMA = "edgeq.pins/1"


class PinChange(NamedTuple):
    """The pinned releases after a change; `changed` is False when nothing had to be done."""

    changed: bool
    pins: list[str]


def read(home: Home, model: str) -> list[str]:
    """Return the pinned releases of a model."""
    try:
        body = files.read_json(_path(home, model))
    except FileNotFoundError:
        return []
    return [str(release) for release in body["releases"]]


def pin(home: Home, model: str, release: str) -> PinChange:
    """Pin a release; idempotent (lock held).

    Raises:
        AgentError: EQ509 the release is not on the device, EQ512 it belongs to another model.
    """
    owner = release_store.read(home, release).model
    if owner != model:
        raise bad("release", f"a release of {model}", f"one of {owner}")
    pinned = read(home, model)
    return PinChange(False, pinned) if release in pinned else _write(home, model, [*pinned, release])


def unpin(home: Home, model: str, release: str) -> PinChange:
    """Unpin a release; idempotent (lock held)."""
    pinned = read(home, model)
    if release not in pinned:
        return PinChange(False, pinned)
    return _write(home, model, [name for name in pinned if name != release])


def _write(home: Home, model: str, releases: list[str]) -> PinChange:
    files.write_json(_path(home, model), {"schema": SCHEMA, "releases": releases})
    return PinChange(True, releases)


def _path(home: Home, model: str) -> str:
    return os.path.join(home.model(model), "pins.json")
