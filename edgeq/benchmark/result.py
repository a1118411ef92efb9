"""A benchmark's result as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latencies of single inferences.

    Attributes:
        p50_ci95_ns: the median's 95 % confidence interval, by order statistics.
    """

    count: int
    min_ns: float
    mean_ns: float
    p50_ns: float
    p90_ns: float
    p95_ns: float
    p99_ns: float
    max_ns: float
    p50_ci95_ns: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The device's state before and after a run; what could not be read is absent, with its reason."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """What one benchmark on one device gave.

    Attributes:
        kernels: which implementation ran: `xnnpack`, `builtin` or `unknown`.
        init_ns: loading the model and preparing its tensors, in a fresh process.
        first_inference_ns: the first inference after that.
        peak_bytes: peak memory of the process, or None with the reason in `memory_source`.
        before_model_bytes: peak memory before the model was loaded: interpreter and libraries.
        invalid: why this run does not count; empty when it does.
        document: the agent's `edgeq.bench/1` as it came.
    """

    model: str
    release: str
    runtime: str
    python: str
    kernels: str
    threads: int
    runs: int
    duration_s: float
    init_ns: float
    first_inference_ns: float
    latency: Latency
    peak_bytes: int | None
    before_model_bytes: int | None
    memory_source: str
    environment: Environment
    invalid: tuple[str, ...]
    warnings: tuple[str, ...]
    document: Mapping[str, Any]

    @property
    def valid(self) -> bool:
        """Whether the run counts."""
        return not self.invalid
