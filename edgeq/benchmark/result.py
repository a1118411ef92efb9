"""The result of a benchmark (`edgeq.bench/1`) as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from edgeq.fleet.responses import Count, Items, Response, parse

# A measured number: neither negative nor infinite. Devices may send any JSON.
Figure = Annotated[float, Field(ge=0, lt=2**63, allow_inf_nan=False)]


class Latency(Response):
    """Latency of single inferences, in nanoseconds.

    Attributes:
        p50_ci95_ns: the 95 % confidence interval of the median, from order statistics.
    """

    count: Count
    min_ns: Figure = Field(validation_alias="min")
    mean_ns: Figure = Field(validation_alias="mean")
    p50_ns: Figure = Field(validation_alias="p50")
    p90_ns: Figure = Field(validation_alias="p90")
    p95_ns: Figure = Field(validation_alias="p95")
    p99_ns: Figure = Field(validation_alias="p99")
    max_ns: Figure = Field(validation_alias="max")
    p50_ci95_ns: Annotated[tuple[Figure, Figure], Strict(False)] = Field(validation_alias="p50_ci95")


class BenchRuntime(Response):
    """The runtime that was measured."""

    module: str
    version: str
    interpreter_python: str


class PeakMemory(Response):
    """Peak memory of the process; `source` says how it was read, or why it could not be."""

    peak_bytes: Count | None
    before_model_bytes: Count | None
    source: str | None = None


class Environment(Response):
    """The device's state before and after a run: readings by name, those that failed under `absent`.

    The set of readings depends on the platform, so they are kept as they arrived.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]


class BenchResult(Response):
    """The result of one benchmark on one device.

    Attributes:
        kernels: which implementation ran: `xnnpack`, `builtin` or `unknown`.
        init_ns: loading the model and allocating its tensors, in a fresh process.
        first_inference_ns: the first inference after that.
        document: the agent's `edgeq.bench/1` as it arrived.
    """

    verbs = ("bench",)

    schema_name: Literal["edgeq.bench/1"] = Field(validation_alias="schema")
    model: str
    release: str
    measured: BenchRuntime = Field(validation_alias="runtime")
    kernels: str
    threads: Count
    runs: Count
    duration_s: Figure
    init_ns: Figure
    first_inference_ns: Figure
    latency: Latency = Field(validation_alias="latency_ns")
    memory: PeakMemory
    environment: Environment
    disturbances: Items[Mapping[str, Any]] = Field(validation_alias="invalid")
    messages: Items[Any] = Field(validation_alias="warnings")

    @property
    def runtime(self) -> str:
        """The runtime's module and version."""
        return f"{self.measured.module} {self.measured.version}"

    @property
    def python(self) -> str:
        """The version of Python that ran it."""
        return self.measured.interpreter_python

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory of the process, or None with the reason in `memory_source`."""
        return self.memory.peak_bytes

    @property
    def before_model_bytes(self) -> int | None:
        """Peak memory before the model was loaded: interpreter and libraries."""
        return self.memory.before_model_bytes

    @property
    def memory_source(self) -> str:
        """How peak memory was read, or why it could not be."""
        return self.memory.source or "source unknown"

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why the run does not count; empty when it does."""
        return tuple(str(entry.get("reason", entry)) for entry in self.disturbances)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may have influenced the run."""
        return tuple(map(str, self.messages))

    @property
    def valid(self) -> bool:
        """Whether the run counts."""
        return not self.disturbances


def parse_bench(document: Mapping[str, Any], *, device: str) -> BenchResult:
    """Return the result in a document `edgeq.bench/1`; unknown fields are ignored.

    Raises:
        AgentProtocolError: a field is missing or has the wrong type; names it.
    """
    return parse(BenchResult, document, device=device, verb="bench")
