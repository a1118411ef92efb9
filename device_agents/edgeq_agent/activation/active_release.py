"""The release that serves a model at one moment: its manifest and runtime, read once per call."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq_agent.activation import counters, states
from edgeq_agent.activation.state_record import SOAKING
from edgeq_agent.errors import DEADLINE, UNHEALTHY, UNSUPPORTED, AgentError
from edgeq_agent.inference.job import InferOptions, InferResult, ReleaseFiles
from edgeq_agent.releases import release_store
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import registry
from edgeq_agent.runtimes.base import OnEvent, RuntimeBackend
from edgeq_agent.storage.home import Home

# The caller's fault, not the release's.
_INPUT_ERROR = "input_not_finite"


@dataclass(frozen=True)
class ActiveRelease:
    """One release that serves; a later swap of the link does not change it.

    Attributes:
        soaking: the release is in its soak time, so its calls and failures are counted.
    """

    home: Home
    manifest: Manifest
    backend: RuntimeBackend
    soaking: bool

    @property
    def files(self) -> ReleaseFiles:
        """The release's files for the model's process."""
        return ReleaseFiles.of(self.home, self.manifest)

    def infer(
        self, options: InferOptions, payload_path: str, timeout_s: float, on_event: OnEvent
    ) -> InferResult:
        """Run the samples of an .npz file; while the release soaks, its calls and failures are counted.

        Raises:
            AgentError: as `RuntimeBackend.infer`.
        """
        try:
            result = self.backend.infer(self.files, options, payload_path, timeout_s, on_event)
        except AgentError as error:
            self.check_content(error)
            if error.code in (UNHEALTHY, DEADLINE):
                late = int(error.code == DEADLINE)
                self._count(calls=1, deadline_misses=late, crashes=1 - late)
            raise
        failed = sum(count for kind, count in result.errors.items() if kind != _INPUT_ERROR)
        self._count(calls=result.samples, errors=failed)
        return result

    def check_content(self, error: AgentError) -> None:
        """Find out whether damaged bytes on the device are why the model does not run.

        Raises:
            AgentError: EQ509, a file of the release is damaged.
        """
        if error.code == UNHEALTHY:
            release_store.check_blobs(self.home, self.manifest)

    def _count(self, **counts: int) -> None:
        if self.soaking:
            counters.add(self.home, self.manifest.model, self.manifest.release, **counts)


def find(home: Home, model: str) -> ActiveRelease:
    """Return the release that serves a model.

    Raises:
        AgentError: EQ510 none serves, EQ503 its runtime is gone, EQ509 a file of it is.
    """
    release = release_store.need_current(home, model)
    record = states.read(home, model)
    digest = record.runtime_of(release)
    if digest is None:
        raise AgentError(
            UNSUPPORTED,
            model,
            "its runtime is no longer known",
            hint="run `edgeq deploy BUNDLE --to DEVICE` again: it installs the runtime",
        )
    soaking = record.state == SOAKING and record.target == release
    manifest = release_store.read(home, release)
    release_store.check_files(home, manifest)
    return ActiveRelease(home, manifest, registry.need(home, digest), soaking)
