"""Verb `bench`: measure the active release in a fresh process."""

from __future__ import annotations

from edgeq_agent.activation import active_release
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import AgentError
from edgeq_agent.inference.job import BenchOptions
from edgeq_agent.wire import Json


def bench(call: Call) -> Json:
    """Verb `bench`: latency, start-up and memory of the active release, on its golden inputs.

    The native program measures other figures on random inputs; its document has another schema.

    Raises:
        AgentError: EQ510 unknown model, EQ511 at the deadline, EQ504 the model's process died.
    """
    fields = call.fields
    model = fields.model_name()
    options = BenchOptions(
        runs=fields.integer("runs", 1, 1000000, default=200),
        min_seconds=fields.seconds("min_seconds", 1.0),
        warmup=fields.integer("warmup", 0, 100000, default=10),
        threads=fields.integer("threads", 1, 256, default=1),
    )
    timeout_s = fields.timeout_s()
    if options.min_seconds >= timeout_s:
        raise fields.refuse("min_seconds", f"less than timeout_s ({timeout_s:g})")
    active = active_release.find(call.home, model)
    try:
        document = active.backend.bench(active.files, options, timeout_s)
    except AgentError as error:
        active.check_content(error)
        raise
    return dict(document, model=model, release=active.manifest.release)
