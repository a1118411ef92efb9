"""Job `bench`: cold start, first inference, latency and peak memory of a model (child process only)."""

from __future__ import annotations

import sys
import time
from typing import Any

from edgeq_agent.inference import model, npz, runtime_modules, stats
from edgeq_agent.inference.job import BenchJob, BenchOptions, JobContext
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.platforms import sensors
from edgeq_agent.platforms.sensors import Environment
from edgeq_agent.wire import Json

# The loop ends before the deadline: a slow model gives fewer runs and a warning instead of an error.
_SHARE_OF_DEADLINE = 0.8
_MAX_RUNS = 1000000
_HOT_RISE_C = 15.0
_STEADY_RUNS = 20


def run(job: BenchJob, context: JobContext) -> Json:
    """Return the edgeq.bench/1 document without schema, model and release.

    It measures until both minima are reached, `runs` and `min_seconds`, as TFLite's benchmark_model does.
    Latency is the invocation alone, without copying inputs and outputs. A model that keeps state is reset
    before each, outside of the measured time.
    """
    options = job.options
    deadline = time.monotonic() + context.timeout_s * _SHARE_OF_DEADLINE
    runtime_modules.interpreter_class(job.module)
    import numpy  # noqa: F401 - imported now so that its memory does not count as the model's

    platform = platforms.platform_of()
    before_model = platform.peak_memory_bytes()
    before = sensors.environment(platform)
    loaded = model.load(job.module, job.files.model_path, options.threads, job.files.cpu_path)
    golden = npz.open_npz(job.files.golden_path, "golden inputs")
    inputs = model.arrays(golden, "input", loaded.inputs, "golden inputs")
    feeds = [model.to_input(array, tensor) for array, tensor in zip(inputs, loaded.inputs)]
    first_ns = model.invoke(loaded, feeds, 0)
    for number in range(options.warmup):
        if time.monotonic() >= deadline:
            break
        loaded = model.fresh(loaded)
        model.invoke(loaded, feeds, number % len(feeds[0]))
    began = time.perf_counter_ns()
    latencies = _measure(loaded, feeds, options, deadline)
    duration_s = (time.perf_counter_ns() - began) / 1e9
    after = sensors.environment(platform)
    peak = platform.peak_memory_bytes()
    return {
        "runtime": {
            "module": job.module,
            "version": job.version,
            "interpreter_python": "{}.{}.{}".format(*sys.version_info[:3]),
        },
        "kernels": loaded.kernels,
        "threads": options.threads,
        "runs": len(latencies),
        "duration_s": duration_s,
        "init_ns": loaded.init_ns,
        "first_inference_ns": first_ns,
        "latency_ns": stats.summary(latencies),
        "memory": {
            "peak_bytes": peak.value,
            "before_model_bytes": before_model.value,
            "source": peak.source,
        },
        "environment": {"before": before.to_json(), "after": after.to_json()},
        "invalid": [{"reason": reason} for reason in after.disturbances_since(before)],
        "warnings": _warnings(options, latencies, before, after),
    }


def _measure(loaded: model.Model, feeds: list[Any], options: BenchOptions, deadline: float) -> list[int]:
    latencies: list[int] = []
    samples = len(feeds[0])
    earliest_end = time.monotonic() + options.min_seconds
    while len(latencies) < _MAX_RUNS:
        loaded = model.fresh(loaded)
        latencies.append(model.invoke(loaded, feeds, len(latencies) % samples))
        now = time.monotonic()
        if now >= deadline or (len(latencies) >= options.runs and now >= earliest_end):
            break
    return latencies


def _warnings(
    options: BenchOptions, latencies: list[int], before: Environment, after: Environment
) -> list[str]:
    warnings = []
    if len(latencies) < options.runs:
        warnings.append(f"{len(latencies)} of {options.runs} runs until the deadline")
    if before.governor.value not in (None, "performance"):
        warnings.append(f"the frequency governor is {before.governor.value}")
    if before.throttling.value is None:
        warnings.append("throttling cannot be seen on this device")
    first, second = before.temperature_c.value, after.temperature_c.value
    if first is not None and second is not None and second - first > _HOT_RISE_C:
        warnings.append(f"the processor became {second - first:.0f} degrees hotter")
    ordered = sorted(latencies)
    if len(ordered) >= _STEADY_RUNS and stats.percentile(ordered, 95) > 2 * stats.percentile(ordered, 50):
        warnings.append("unsteady: p95 is more than twice p50")
    return warnings
