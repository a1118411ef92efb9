"""The host side of benchmarks: ask a device, parse what it measured, say it in words."""

from __future__ import annotations

from edgeq.benchmark.measure import AgentCall, bench, measure
from edgeq.benchmark.native import NativeResult, native_summary
from edgeq.benchmark.parse import parse_bench
from edgeq.benchmark.result import BenchResult, Environment, Latency
from edgeq.benchmark.summary import summary

__all__ = [
    "AgentCall",
    "BenchResult",
    "Environment",
    "Latency",
    "NativeResult",
    "bench",
    "measure",
    "native_summary",
    "parse_bench",
    "summary",
]
