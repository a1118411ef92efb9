"""Asking a device's agent to benchmark a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edgeq.benchmark.native import NativeResult, is_native, parse_native
from edgeq.benchmark.parse import parse_bench
from edgeq.benchmark.result import BenchResult
from edgeq.errors import DeviceUnsupported

TIMEOUT_S = 120
# How much longer the host waits than the agent: the agent's own deadline gives the better error.
_GRACE_S = 20


class AgentCall(Protocol):
    """What a benchmark needs of a connected agent."""

    def call(self, verb: str, request: Mapping[str, Any], *, deadline_s: float = ...) -> Mapping[str, Any]:
        """Run one verb and return its result."""
        ...


def measure(
    client: AgentCall,
    model: str,
    *,
    device: str,
    runs: int = 200,
    min_seconds: float = 1.0,
    warmup: int = 10,
    threads: int = 1,
    timeout_s: int = TIMEOUT_S,
) -> BenchResult | NativeResult:
    """Measure the model that a device serves, in a fresh process there; by whichever runtime it has.

    Args:
        runs, min_seconds: both minima hold.
        device: the device's name, for messages.

    Raises:
        AgentProtocolError: the answer is no `edgeq.bench/1` or `edgeq.native-bench/1`.
        EdgeqError: whatever the device or the way to it raises.
    """
    request = {
        "model": model,
        "runs": runs,
        "min_seconds": min_seconds,
        "warmup": warmup,
        "threads": threads,
        "timeout_s": timeout_s,
    }
    document = client.call("bench", request, deadline_s=timeout_s + _GRACE_S)
    return (
        parse_native(document, device=device) if is_native(document) else parse_bench(document, device=device)
    )


def bench(
    client: AgentCall,
    model: str,
    *,
    device: str,
    runs: int = 200,
    min_seconds: float = 1.0,
    warmup: int = 10,
    threads: int = 1,
    timeout_s: int = TIMEOUT_S,
) -> BenchResult:
    """Measure as `measure` does, where only figures of edgeq's own will do.

    Raises:
        DeviceUnsupported: EQ559, the device has the native program alone.
    """
    result = measure(
        client,
        model,
        device=device,
        runs=runs,
        min_seconds=min_seconds,
        warmup=warmup,
        threads=threads,
        timeout_s=timeout_s,
    )
    if isinstance(result, NativeResult):
        raise DeviceUnsupported(
            f"{device}: {model}",
            "its runtime there is benchmark_model, whose figures cannot be compared with the others",
            hint="choose another device, or install a TFLite runtime there",
            code="EQ559",
        )
    return result
