"""Asking a device's agent to benchmark a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edgeq.benchmark.parse import parse_bench
from edgeq.benchmark.result import BenchResult

TIMEOUT_S = 120
# How much longer the host waits than the agent: the agent's own deadline gives the better error.
_GRACE_S = 20


class AgentCall(Protocol):
    """What a benchmark needs of a connected agent."""

    def call(self, verb: str, request: Mapping[str, Any], *, deadline_s: float = ...) -> Mapping[str, Any]:
        """Run one verb and return its result."""
        ...


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
    """Measure the model that a device serves, in a fresh process there.

    Args:
        runs, min_seconds: both minima hold.
        device: the device's name, for messages.

    Raises:
        AgentProtocolError: the answer is no `edgeq.bench/1`.
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
    return parse_bench(client.call("bench", request, deadline_s=timeout_s + _GRACE_S), device=device)
