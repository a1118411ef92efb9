"""Resolve how callers name a release: its id, the beginning of it, `current` or `previous`."""

from __future__ import annotations

from typing import Type

from edgeq_agent.activation import states
from edgeq_agent.errors import InferenceError
from edgeq_agent.releases import release_store
from edgeq_agent.storage.home import Home

_SHORTEST = 6


def release_named(home: Home, model: str, name: str, refusal: Type[InferenceError]) -> str:
    """Return the id of a model's release on this device.

    Args:
        refusal: the class of the error when no release, or more than one, has that name.
    """
    on_device = release_store.of_model(home, model)
    if name == "current":
        current = release_store.current(home, model)
        matches = [current] if current else []
    elif name == "previous":
        previous = states.read(home, model).previous
        matches = [previous] if previous else []
    elif len(name) >= _SHORTEST:
        matches = [release for release in on_device if release.startswith(name)]
    else:
        matches = []
    if len(matches) == 1:
        return matches[0]
    raise refusal(
        f"{model} {name}",
        f"{len(matches)} releases of that name are on this device",
        expected="current, previous, or the beginning of one of "
        + (", ".join(release[:12] for release in on_device) or "none"),
        hint="deploy the release first; `edgeq status` lists what is there",
    )
