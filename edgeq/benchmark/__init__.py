"""Benchmarks of models on devices: request, parse, record and summarize."""

from __future__ import annotations

from edgeq.benchmark.measure import BenchSettings, RecordedBench, bench, measure, measure_and_record
from edgeq.benchmark.native import NativeResult, native_summary
from edgeq.benchmark.result import BenchResult, Environment, Latency, parse_bench
from edgeq.benchmark.summary import summary

__all__ = [
    "BenchResult",
    "BenchSettings",
    "Environment",
    "Latency",
    "NativeResult",
    "RecordedBench",
    "bench",
    "measure",
    "measure_and_record",
    "native_summary",
    "parse_bench",
    "summary",
]
