"""The result of a benchmark by TFLite's `benchmark_model` (`edgeq.native-bench/1`) as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from edgeq.benchmark.result import Figure
from edgeq.fleet.responses import Count, Items, Response, parse
from edgeq.units import format_duration, format_size
from edgeq_agent import wire


class NativeLatency(Response):
    """Latency of single inferences, in nanoseconds; an older program prints no percentiles."""

    count: Count
    min: Figure
    p5: Figure | None = None
    p50: Figure | None = None
    mean: Figure
    p95: Figure | None = None
    max: Figure


class NativeMemory(Response):
    """Peak memory of the whole program, or None when it was not measured."""

    peak_bytes: Count | None = None


class NativeResult(Response):
    """The result of `benchmark_model`, on inputs of its own and without the latencies of single runs.

    Attributes:
        document: the agent's `edgeq.native-bench/1` as it arrived.
    """

    model: str = ""
    release: str = ""
    latency_ns: NativeLatency
    init_ns: Figure
    first_inference_ns: Figure
    threads: Count
    memory: NativeMemory = NativeMemory()
    warnings: Items[Any] = Field(default=())
    program: str | None = None
    kernels: str | None = None

    @property
    def valid(self) -> bool:
        """Whether the run counts; the program reports nothing that would make it invalid."""
        return True


def is_native(document: Mapping[str, Any]) -> bool:
    """Return whether a response of `bench` is the native program's."""
    return document.get("schema") == wire.NATIVE_BENCH_SCHEMA


def parse_native(document: Mapping[str, Any], *, device: str) -> NativeResult:
    """Return the result in a document.

    Raises:
        AgentProtocolError: a field is missing or has the wrong type; names it.
    """
    return parse(NativeResult, document, device=device, verb="bench")


def native_summary(result: NativeResult) -> tuple[str, ...]:
    """Return the lines that `edgeq bench` prints."""
    latency = result.latency_ns
    values = {
        "min": latency.min,
        "p5": latency.p5,
        "p50": latency.p50,
        "mean": latency.mean,
        "p95": latency.p95,
        "max": latency.max,
    }
    times = [f"{name} {format_duration(value)}" for name, value in values.items() if value is not None]
    peak = result.memory.peak_bytes
    memory = "not measured" if peak is None else f"peak {format_size(peak)} of the whole program"
    return (
        "source    benchmark_model, on random inputs; compare with edgeq's own benchmarks only roughly",
        f"latency   {', '.join(times)}",
        f"runs      {latency.count}, threads {result.threads}",
        f"start     load {format_duration(result.init_ns)}, "
        f"first inference {format_duration(result.first_inference_ns)}",
        f"memory    {memory}",
        f"runtime   program {result.program}, kernels {result.kernels}",
        *(f"warning   {warning}" for warning in result.warnings),
    )
