"""The demo's output: a numbered line for each step, and one line for each result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgeq.benchmark import BenchResult
from edgeq.blueprint import Limits
from edgeq.demo.result import DeployFigures, TrafficFigures
from edgeq.units import format_duration, format_percent, format_size
from edgeq.values import Variant

STEPS = 13


@dataclass(kw_only=True)
class StepLog:
    """Prints each step and its results, and measures its duration."""

    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[Callable[[str], None]]:
        """Time a step; yield a function that takes a one-line result."""
        number = len(self.seconds) + 1
        self.say(f"[{number:2}/{STEPS}] {title} ...")
        started_s = time.monotonic()
        results: list[str] = []
        yield results.append
        self.seconds[name] = time.monotonic() - started_s
        for result in results:
            self.say(f"        {result}")


def variant_line(variant: Variant) -> str:
    """Return a variant's size and metrics as text."""
    metrics = variant.metrics
    accuracy, agreement = format_percent(metrics.accuracy or 0), format_percent(metrics.agreement or 0)
    size, sqnr_db = format_size(variant.size_bytes), metrics.output_sqnr_db or 0
    return f"{variant.name}: {size}, accuracy {accuracy}, agreement {agreement}, output SQNR {sqnr_db:.1f} dB"


def bench_line(result: BenchResult) -> str:
    """Return a benchmark's main figures as text."""
    latency = result.latency
    peak = "not measured" if result.peak_bytes is None else format_size(result.peak_bytes)
    return (
        f"p50 {format_duration(latency.p50_ns)}, p95 {format_duration(latency.p95_ns)}, "
        f"load {format_duration(result.init_ns)}, first {format_duration(result.first_inference_ns)}, "
        f"peak memory {peak}, kernels {result.kernels}"
    )


def traffic_line(figures: TrafficFigures, *, alpha: float) -> str:
    """Return the monitor's verdict on a stretch of traffic as text."""
    verdict = "SHIFTED" if figures.alarm else "nothing has changed"
    return (
        f"{figures.windows} windows, accuracy {format_percent(figures.accuracy)}: {verdict} "
        f"(e-value {figures.e_value:.3g}, alarm at {1 / alpha:g}; "
        f"strongest: {figures.strongest}, PSI {figures.psi:.2f})"
    )


def deploy_line(figures: DeployFigures) -> str:
    """Return the outcome of a deploy and of the second plan as text."""
    sent = format_size(figures.sent_bytes)
    again = "nothing to do" if figures.again_steps == 0 else f"{figures.again_steps} STEPS"
    return f"{figures.variant}: {sent} sent in {figures.duration_s:.1f} s; planned again: {again}"


def limits_line(limits: Limits) -> str:
    """Return a blueprint's limits as text with readable units."""
    shown = []
    for name in limits.stated():
        quantity, _, bound = name.rpartition("_")
        quantity = quantity.removesuffix("_ns").removesuffix("_bytes").removesuffix("_db").replace("_", " ")
        shown.append(f"{quantity} {'at most' if bound == 'max' else 'at least'} {limits.text(name)}")
    return ", ".join(shown)
