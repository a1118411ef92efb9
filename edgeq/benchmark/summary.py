"""A benchmark's result as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.benchmark.result import BenchResult
from edgeq.units import format_duration, format_size

_NAMES = {
    "temperature_c": ("temperature", " C"),
    "frequency_hz": ("frequency", " Hz"),
    "load_1min": ("load", ""),
}


def summary(result: BenchResult) -> tuple[str, ...]:
    """Return the lines that `edgeq bench` prints: measurements first, then what limits their validity."""
    latency = result.latency
    low, high = (format_duration(bound) for bound in latency.p50_ci95_ns)
    lines = [
        f"latency   p50 {format_duration(latency.p50_ns)} (95 % CI {low} to {high}), "
        f"p90 {format_duration(latency.p90_ns)}, p95 {format_duration(latency.p95_ns)}, "
        f"p99 {format_duration(latency.p99_ns)}, max {format_duration(latency.max_ns)}",
        f"runs      {latency.count} in {result.duration_s:.1f} s on {result.threads} "
        f"thread{'' if result.threads == 1 else 's'}",
        f"start     load {format_duration(result.init_ns)}, "
        f"first inference {format_duration(result.first_inference_ns)}",
        f"memory    {_memory(result)}",
        f"runtime   {result.runtime}, kernels {result.kernels}, Python {result.python}",
    ]
    lines += [f"device    {line}" for line in _environment(result)]
    lines += [f"warning   {warning}" for warning in result.warnings]
    lines += [f"INVALID   because {reason}" for reason in result.invalid]
    return tuple(lines)


def _memory(result: BenchResult) -> str:
    if result.peak_bytes is None:
        return f"not measured ({result.memory_source})"
    text = f"peak {format_size(result.peak_bytes)} ({result.memory_source})"
    if result.before_model_bytes is None:
        return text
    own = result.peak_bytes - result.before_model_bytes
    return f"{text}, {format_size(own)} of it after loading the model"


def _environment(result: BenchResult) -> list[str]:
    before, after = result.environment.before, result.environment.after
    lines = []
    for name in before:
        if name == "absent" or before[name] is None:
            continue
        if name == "cpu_pressure_us":  # a counter since boot: the difference is what counts
            waited_us = max(0, (after.get(name) or before[name]) - before[name])
            lines.append(f"tasks waited for the processor for {format_duration(1000 * waited_us)} in all")
            continue
        shown, unit = _NAMES.get(name, (name, ""))
        then, now = _shown(before[name]), _shown(after.get(name))
        lines.append(f"{shown}: {then}{unit}" + ("" if then == now else f" -> {now}{unit}"))
    absent = before.get("absent")
    if isinstance(absent, Mapping):
        names = ((_NAMES.get(name, (name, ""))[0], reason) for name, reason in absent.items())
        lines += [f"{name}: not measured ({reason})" for name, reason in names]
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
