"""The host side of benchmarks: ask a device, parse what it measured, say it in words."""

from __future__ import annotations

from edgeq.benchmark.measure import AgentCall, bench
from edgeq.benchmark.parse import parse_bench
from edgeq.benchmark.result import BenchResult, Environment, Latency
from edgeq.benchmark.summary import summary

__all__ = ["AgentCall", "BenchResult", "Environment", "Latency", "bench", "parse_bench", "summary"]
