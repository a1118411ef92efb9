"""What serves a model right now: its release, manifest and runtime, read once a call."""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeq_agent.activation import states
from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import registry
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


class Serving(NamedTuple):
    """One release that serves; later swaps of the link do not change it."""

    home: Home
    manifest: Manifest
    runtime: Json
    on_trial: bool = False  # it soaks: what it does is counted

    def job(self, name: str) -> Json:
        """Return the part of a child's job that says which model runs under which runtime."""
        folder = self.home.release(self.manifest.release)
        return {
            "job": name,
            "module": self.runtime["module"],
            "version": self.runtime["version"],
            "model_path": os.path.join(folder, self.manifest.model_file),
            "golden_path": os.path.join(folder, self.manifest.golden_file),
            "reference_path": self._reference(folder),
        }

    def _reference(self, folder: str) -> str | None:
        name = self.manifest.reference_file
        return os.path.join(folder, name) if name else None


def find(home: Home, model: str) -> Serving:
    """Return what serves a model.

    Raises:
        AgentError: EQ510 nothing does, EQ503 its runtime is gone.
    """
    release = release_store.need_current(home, model)
    state = states.load(home, model)
    digest = state.runtime_of(release)
    if digest is None:
        raise AgentError(
            UNSUPPORTED,
            model,
            "its runtime is not known any more",
            hint="run `edgeq deploy` again: it installs it",
        )
    on_trial = state.state == states.SOAKING and state.target == release
    return Serving(home, release_store.read(home, release), registry.need(home, digest), on_trial)
