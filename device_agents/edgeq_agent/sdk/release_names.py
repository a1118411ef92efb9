"""What callers call a release: its id, the beginning of it, `current` or `previous`."""

from __future__ import annotations

from typing import Type

from edgeq_agent.activation import states
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.errors import InferenceError
from edgeq_agent.storage.home import Home

_SHORTEST = 6


def release_named(place: Home, model: str, name: str, refuse: Type[InferenceError]) -> str:
    """Return the id of a model's release on this device.

    Args:
        refuse: the class of the error when there is no such release, or more than one.
    """
    if name == "current":
        found = release_store.current(place, model)
        known = [found] if found else []
    elif name == "previous":
        found = states.load(place, model).previous
        known = [found] if found else []
    else:
        here = release_store.of_model(place, model)
        known = [release for release in here if release.startswith(name)] if len(name) >= _SHORTEST else []
    if len(known) == 1:
        return known[0]
    here = release_store.of_model(place, model)
    raise refuse(
        f"{model} {name}",
        f"{len(known)} releases of that name are on this device",
        expected="current, previous, or the beginning of one of "
        + (", ".join(release[:12] for release in here) or "none"),
        hint="deploy the release first; `edgeq status` lists what is there",
    )
