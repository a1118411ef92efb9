"""Job `bench`: cold start, first inference, latency and peak memory of a model (child process only)."""

from __future__ import annotations

import sys
import time
from typing import Any

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.inference import model, runtime_modules, stats
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.platforms import sensors
from edgeq_agent.platforms.sensors import Environment

# The loop ends before the deadline: a slow model gives fewer runs and a warning instead of nothing.
_SHARE_OF_DEADLINE = 0.8
_MAX_RUNS = 1000000
_HOT_RISE_C = 15.0


def run(job: wire.Json, response: Response) -> wire.Json:
    """Return the edgeq.bench/1 document without model and release.

    Both minima hold (`runs` and `min_seconds`), as in TFLite's benchmark_model; latency is the invocation
    alone.
    """
    deadline = time.monotonic() + float(job["timeout_s"]) * _SHARE_OF_DEADLINE
    runtime_modules.interpreter_class(str(job["module"]))
    import numpy  # noqa: F401 - loaded here so that its memory is not counted as the model's

    platform = platforms.platform_of()
    before_model = platform.peak_memory_bytes()
    before = sensors.environment(platform)
    loaded = model.load(str(job["module"]), str(job["model_path"]), int(job["threads"]))
    golden = model.open_npz(str(job["golden_path"]), "golden inputs")
    inputs = model.arrays(golden, "input", loaded.inputs, "golden inputs")
    feeds = [model.to_input(array, tensor) for array, tensor in zip(inputs, loaded.inputs)]
    first_ns = model.invoke(loaded, feeds, 0)
    for number in range(int(job["warmup"])):
        if time.monotonic() >= deadline:
            break
        model.invoke(loaded, feeds, number % len(feeds[0]))
    began = time.perf_counter_ns()
    latencies = _measure(loaded, feeds, int(job["runs"]), float(job["min_seconds"]), deadline)
    duration_s = (time.perf_counter_ns() - began) / 1e9
    after = sensors.environment(platform)
    peak = platform.peak_memory_bytes()
    return {
        "runtime": {
            "module": job["module"],
            "version": job["version"],
            "interpreter_python": "{}.{}.{}".format(*sys.version_info[:3]),
        },
        "kernels": loaded.kernels,
        "threads": job["threads"],
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
        "warnings": _warnings(job, latencies, before, after),
    }


def _measure(
    loaded: model.Model, feeds: list[Any], runs: int, min_seconds: float, deadline: float
) -> list[int]:
    latencies: list[int] = []
    samples = len(feeds[0])
    enough = time.monotonic() + min_seconds
    while len(latencies) < _MAX_RUNS:
        latencies.append(model.invoke(loaded, feeds, len(latencies) % samples))
        now = time.monotonic()
        if now >= deadline or (len(latencies) >= runs and now >= enough):
            break
    return latencies


def _warnings(job: wire.Json, latencies: list[int], before: Environment, after: Environment) -> list[str]:
    found = []
    if len(latencies) < int(job["runs"]):
        found.append("{} of {} runs until the deadline".format(len(latencies), job["runs"]))
    if before.governor.value not in (None, "performance"):
        found.append(f"the frequency governor is {before.governor.value}")
    if before.throttling.value is None:
        found.append("throttling cannot be seen on this device")
    one, two = before.temperature_c.value, after.temperature_c.value
    if one is not None and two is not None and two - one > _HOT_RISE_C:
        found.append(f"the processor became {two - one:.0f} degrees hotter")
    ordered = sorted(latencies)
    if len(ordered) >= 20 and stats.percentile(ordered, 95) > 2 * stats.percentile(ordered, 50):
        found.append("unsteady: p95 is more than twice p50")
    return found
