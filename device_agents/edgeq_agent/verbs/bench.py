"""Verb `bench`: measure the serving release in a fresh process."""

from __future__ import annotations

from edgeq_agent import wire
from edgeq_agent.activation import active_release
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.inference import model_process
from edgeq_agent.runtimes import native
from edgeq_agent.wire import Json


def bench(call: Call) -> Json:
    """Verb `bench`: latency, start-up and memory of the release that serves, on its golden inputs.

    Over the native program the answer has another schema: other inputs, other figures.

    Raises:
        AgentError: EQ510 unknown model, EQ511 it did not end in time, EQ504 the model's process died.
    """
    model = request.model_name(call.request)
    job: Json = {
        "runs": request.integer(call.request, "runs", 1, 1000000, default=200),
        "min_seconds": request.seconds(call.request, "min_seconds", 1.0),
        "warmup": request.integer(call.request, "warmup", 0, 100000, default=10),
        "threads": request.integer(call.request, "threads", 1, 256, default=1),
    }
    timeout_s = request.timeout_s(call.request)
    if job["min_seconds"] >= timeout_s:
        raise request.bad("min_seconds", f"less than timeout_s ({timeout_s:g})", job["min_seconds"])
    serves = active_release.find(call.home, model)
    job.update(serves.job("bench"))
    if native.is_native(serves.runtime):
        program, version = str(serves.runtime["interpreter"]), str(serves.runtime["version"])
        figures = native.bench(program, version, job, timeout_s)
        return dict(figures, schema=wire.NATIVE_BENCH_SCHEMA, model=model, release=serves.manifest.release)
    measured = model_process.run(str(serves.runtime["interpreter"]), job, timeout_s)
    measured.update(schema=wire.BENCH_SCHEMA, model=model, release=serves.manifest.release)
    return measured
