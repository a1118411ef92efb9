"""Pinned releases: they stay on the device until they are unpinned."""

from __future__ import annotations

import os

from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home

SCHEMA = "edgeq.pins/1"


def read(home: Home, model: str) -> list[str]:
    """Return the pinned releases of a model."""
    try:
        body = files.read_json(_path(home, model))
    except FileNotFoundError:
        return []
    return [str(release) for release in body["releases"]]


def write(home: Home, model: str, releases: list[str]) -> None:
    """Replace the pinned releases of a model."""
    files.write_json(_path(home, model), {"schema": SCHEMA, "releases": releases})


def _path(home: Home, model: str) -> str:
    return os.path.join(home.model(model), "pins.json")
