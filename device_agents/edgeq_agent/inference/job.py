"""The jobs of the model's process and their results: typed on both sides, JSON on the pipe between them.

Parent and child run the same agent file, so the JSON has no version and is not checked again.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple, Union

from edgeq_agent.calls.call import Response
from edgeq_agent.calls.fields import Fields
from edgeq_agent.releases.manifest import GoldenTolerance, Manifest
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

# What a passed health check proves: the golden outputs, or only that the model ran.
GOLDEN = "golden"
RAN = "ran"


class JobContext(NamedTuple):
    """The context of a job: where its events go, and its deadline."""

    response: Response
    timeout_s: float


@dataclass(frozen=True)
class ReleaseFiles:
    """The files of a release that the model's process opens, and how it compares the golden outputs.

    Attributes:
        cpu_path: the model to load where the other one needs an Edge TPU that is not there.
    """

    model_path: str
    golden_path: str
    reference_path: str | None
    tolerance: GoldenTolerance
    cpu_path: str | None = None

    @classmethod
    def of(cls, home: Home, manifest: Manifest) -> ReleaseFiles:
        """Return the files of a release on the device."""
        folder = home.release(manifest.release)
        reference = manifest.reference_file
        return cls(
            model_path=os.path.join(folder, manifest.model_file),
            golden_path=os.path.join(folder, manifest.golden_file),
            reference_path=os.path.join(folder, reference) if reference else None,
            tolerance=manifest.tolerance,
            cpu_path=os.path.join(folder, manifest.cpu_file) if manifest.cpu_file else None,
        )

    @classmethod
    def from_json(cls, body: Json) -> ReleaseFiles:
        """Return the release files that a job's `to_json` wrote."""
        return cls(
            model_path=body["model_path"],
            golden_path=body["golden_path"],
            reference_path=body["reference_path"],
            tolerance=GoldenTolerance.parse(Fields(body["tolerance"])),
            cpu_path=body["cpu_path"],
        )


@dataclass(frozen=True)
class SelfTestJob:
    """Find the first runtime module that imports and computes a known model correctly."""

    NAME: ClassVar[str] = "prove"
    modules: tuple[str, ...]

    @classmethod
    def from_json(cls, body: Json) -> SelfTestJob:
        """Return the job that the parent sent."""
        return cls(tuple(body["modules"]))


@dataclass(frozen=True)
class GoldenJob:
    """Compare the model's outputs for the golden inputs with the host's; measure latency and memory."""

    NAME: ClassVar[str] = "golden"
    module: str
    version: str
    files: ReleaseFiles

    @classmethod
    def from_json(cls, body: Json) -> GoldenJob:
        """Return the job that the parent sent."""
        return cls(body["module"], body["version"], ReleaseFiles.from_json(body["files"]))


@dataclass(frozen=True)
class InferOptions:
    """Options for running samples.

    Attributes:
        window: samples in one telemetry window.
        outputs: whether the result has the outputs themselves.
        sequence: whether the samples are one sequence, so that the model's state goes on from each to the
            next.
    """

    window: int
    outputs: bool
    threads: int
    sequence: bool = False


@dataclass(frozen=True)
class InferJob:
    """Run samples through the model."""

    NAME: ClassVar[str] = "infer"
    module: str
    files: ReleaseFiles
    payload_path: str
    options: InferOptions

    @classmethod
    def from_json(cls, body: Json) -> InferJob:
        """Return the job that the parent sent."""
        files = ReleaseFiles.from_json(body["files"])
        return cls(body["module"], files, body["payload_path"], InferOptions(**body["options"]))


@dataclass(frozen=True)
class BenchOptions:
    """How long a benchmark measures: until both minima are reached, `runs` and `min_seconds`."""

    runs: int
    min_seconds: float
    warmup: int
    threads: int


@dataclass(frozen=True)
class BenchJob:
    """Measure start-up, latency and memory on the golden inputs."""

    NAME: ClassVar[str] = "bench"
    module: str
    version: str
    files: ReleaseFiles
    options: BenchOptions

    @classmethod
    def from_json(cls, body: Json) -> BenchJob:
        """Return the job that the parent sent."""
        files = ReleaseFiles.from_json(body["files"])
        return cls(body["module"], body["version"], files, BenchOptions(**body["options"]))


Job = Union[SelfTestJob, GoldenJob, InferJob, BenchJob]


def to_json(job: Job) -> Json:
    """Return a job as the parent sends it."""
    return dict(asdict(job), job=job.NAME)


@dataclass(frozen=True)
class SelfTest:
    """The runtime that passed its self-test; `python` and `numpy` are empty for a native program."""

    module: str
    version: str
    python: str = ""
    numpy: str = ""

    @classmethod
    def from_json(cls, body: Json) -> SelfTest:
        """Return the result that the child sent."""
        return cls(body["module"], body["version"], body["python"], body["numpy"])

    def to_json(self) -> Json:
        """Return what the child sends, `runtime.json` stores and the response has."""
        return asdict(self)


@dataclass(frozen=True)
class GoldenReport:
    """How the outputs for the golden inputs compare with the host's.

    Attributes:
        exact: whether integer outputs had to be equal.
        worst_steps: the largest difference of integer outputs, in quantization steps.
        worst_error: the largest absolute difference of float outputs.
        mismatches: outputs outside the tolerance.
    """

    samples: int
    outputs: int
    exact: bool
    max_steps: int
    worst_steps: int
    worst_error: float
    mismatches: int


@dataclass(frozen=True)
class HealthReport:
    """The measurements of a release's health check.

    Attributes:
        golden: None for a native program, which gives no outputs.
        runs: of a native program.
        latency_of: what `latency_p95_ns` is for a native program: `p95`, or `max` where it prints none.
        delegated_outputs: which of several outputs a delegate computes, in their order; None where that is
            not known.
    """

    proof: str
    latency_p95_ns: int
    memory_peak_bytes: int | None
    kernels: str
    golden: GoldenReport | None = None
    runs: int | None = None
    latency_of: str | None = None
    delegated_outputs: list[bool] | None = None

    @classmethod
    def from_json(cls, body: Json) -> HealthReport:
        """Return the result that the child sent."""
        return cls(
            proof=GOLDEN,
            latency_p95_ns=body["latency_p95_ns"],
            memory_peak_bytes=body["memory_peak_bytes"],
            kernels=body["kernels"],
            golden=GoldenReport(**body["golden"]),
            delegated_outputs=body.get("delegated_outputs"),
        )

    def to_json(self) -> Json:
        """Return what the child sends, `state.json` stores and the response has."""
        body: Json = {
            "proof": self.proof,
            "golden": asdict(self.golden) if self.golden else {"samples": 0, "checked": False},
            "latency_p95_ns": self.latency_p95_ns,
            "memory_peak_bytes": self.memory_peak_bytes,
            "kernels": self.kernels,
        }
        if self.golden is None:
            body.update(runs=self.runs, latency_of=self.latency_of)
        if self.delegated_outputs is not None:
            body["delegated_outputs"] = self.delegated_outputs
        return body


@dataclass(frozen=True)
class LatencySummary:
    """Nearest-rank percentiles in nanoseconds; None where no sample was run."""

    p50: int | None
    p95: int | None
    max: int | None


@dataclass(frozen=True)
class InferResult:
    """The predictions of all samples, in their order.

    Attributes:
        errors: samples without a usable answer, by kind; their class is -1 and their confidence 0.
        sequences: how often the state was reset: once for each sequence, and for each independent sample;
            None for a model that keeps no state.
        outputs: real values of the first output, (samples, classes); None where they were not requested.
    """

    samples: int
    errors: dict[str, int]
    predicted: list[int]
    confidence: list[float]
    latency_ns: LatencySummary
    kernels: str
    telemetry_ns_per_inference: int
    sequences: int | None = None
    outputs: list[list[float]] | None = None

    @classmethod
    def from_json(cls, body: Json) -> InferResult:
        """Return the result that the child sent."""
        return cls(**dict(body, latency_ns=LatencySummary(**body["latency_ns"])))

    def to_json(self) -> Json:
        """Return what the child sends and the response has."""
        # Not asdict: it would copy lists of as many numbers as there are outputs.
        body = dict(vars(self), latency_ns=asdict(self.latency_ns))
        if self.outputs is None:
            del body["outputs"]
        return body
