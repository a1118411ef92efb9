"""Pinned releases: they stay on the device until they are unpinned."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from edgeq_agent.calls.fields import Fields, bad
from edgeq_agent.errors import AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home

SCHEMA = "edgeq.pins/1"


class PinChange(NamedTuple):
    """The pinned releases after a change; `changed` is False when nothing had to be done."""

    changed: bool
    pins: list[str]


def read(home: Home, model: str) -> list[str]:
    """Return the pinned releases of a model; none when the file is damaged: the next verb replaces it."""
    try:
        return parse(files.read_json(path_of(home, model)))
    except (FileNotFoundError, ValueError):
        return []


def parse(body: Any) -> list[str]:
    """Return the pinned releases that a file names.

    Raises:
        ValueError: it is not a file of pins.
    """
    try:
        fields = Fields(body)
        fields.one_of("schema", (SCHEMA,))
        return fields.list_of("releases", Fields.sha256)
    except AgentError as error:
        raise ValueError(f"is not {SCHEMA}: {error.subject}") from error


def replace(home: Home, model: str, releases: list[str]) -> None:
    """Pin these releases instead of all others (lock held)."""
    files.write_json(path_of(home, model), {"schema": SCHEMA, "releases": releases})


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
    replace(home, model, releases)
    return PinChange(True, releases)


def path_of(home: Home, model: str) -> str:
    """Return the path of a model's file of pins."""
    return os.path.join(home.model(model), "pins.json")
