"""The interface of a runtime on this device: what runs a model, and what it can and cannot do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

if TYPE_CHECKING:
    from edgeq_agent.inference.job import (
        BenchOptions,
        HealthReport,
        InferOptions,
        InferResult,
        ReleaseFiles,
        SelfTest,
    )

OnEvent = Callable[[Json], None]


@dataclass(frozen=True)
class RuntimeEntry:
    """What `runtime/<digest>/runtime.json` says of a runtime.

    Attributes:
        interpreter: absolute path of the Python that has the runtime, or of the native program.
        module: the Python module that runs inference, or the name of the native program.
    """

    digest: str
    interpreter: str
    module: str
    version: str


class RuntimeBackend(ABC):
    """One kind of runtime; `registry` returns the one that fits an entry.

    Attributes:
        proof: what a passed health check shows: `golden` outputs, or that the model `ran`.
    """

    proof: str

    def __init__(self, entry: RuntimeEntry) -> None:
        self.entry = entry

    @property
    @abstractmethod
    def python(self) -> str | None:
        """The interpreter that an application can run the model in; None for a native program."""

    @abstractmethod
    def self_test(self, home: Home, timeout_s: float) -> SelfTest:
        """Run a known model.

        Raises:
            AgentError: EQ503 it does not start or computes wrong values, EQ511 at the deadline, EQ561 as
                `native_output.parse`.
        """

    @abstractmethod
    def check_health(self, files: ReleaseFiles, timeout_s: float) -> HealthReport:
        """Load and run a release's model.

        Raises:
            AgentError: EQ504 it does not load, crashes, or gives other outputs than the manifest allows;
                EQ511 at the deadline; EQ560, EQ561 as `edgetpu.load_delegate` and `native_output.parse`.
        """

    @abstractmethod
    def bench(self, files: ReleaseFiles, options: BenchOptions, timeout_s: float) -> Json:
        """Measure a release and return the document, with its schema but without model and release.

        Raises:
            AgentError: as `check_health`.
        """

    @abstractmethod
    def infer(
        self,
        files: ReleaseFiles,
        options: InferOptions,
        payload_path: str,
        timeout_s: float,
        on_event: OnEvent,
    ) -> InferResult:
        """Run the samples of an .npz file; telemetry windows go to `on_event`.

        Raises:
            AgentError: EQ512 the payload does not fit the model, EQ559 as `require_outputs`, else as
                `check_health`.
        """

    @abstractmethod
    def require_outputs(self, model: str) -> None:
        """Refuse a request that needs the model's outputs.

        Raises:
            AgentError: EQ559, this runtime gives none.
        """

    @abstractmethod
    def require_comparison(self, model: str) -> None:
        """Refuse an A/B experiment, which compares outputs and telemetry.

        Raises:
            AgentError: EQ559, this runtime gives none.
        """
