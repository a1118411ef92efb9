"""A benchmark's result in lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.benchmark.result import BenchResult
from edgeq.units import format_duration, format_size

_UNITS = {"temperature_c": " C", "frequency_hz": " Hz", "cpu_pressure_us": " us of waiting"}


def summary(result: BenchResult) -> tuple[str, ...]:
    """Return the lines that `edgeq bench` prints: figures first, then what to think of them."""
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
    return f"{text}, {format_size(own)} of it since the model was loaded"


def _environment(result: BenchResult) -> list[str]:
    before, after = result.environment.before, result.environment.after
    lines = []
    for name in before:
        if name != "absent" and before[name] is not None:
            unit, then, now = _UNITS.get(name, ""), _shown(before[name]), _shown(after.get(name))
            same = then == now
            lines.append(f"{name.replace('_', ' ')}: {then}{unit}" + ("" if same else f" -> {now}{unit}"))
    absent = before.get("absent")
    if isinstance(absent, Mapping):
        lines += [f"{name}: not measured ({reason})" for name, reason in absent.items()]
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
