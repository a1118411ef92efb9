"""Verbs `stage` and `unstage`: keep a second, checked release on the device that does not serve."""

from __future__ import annotations

from edgeq_agent.activation import staging
from edgeq_agent.activation.gate import GateRequest
from edgeq_agent.calls.call import Call
from edgeq_agent.storage import lock
from edgeq_agent.verbs import recovers_itself
from edgeq_agent.wire import Json


@recovers_itself
def stage(call: Call) -> Json:
    """Verb `stage`: check a release here and keep it as a candidate; idempotent.

    A release that serves already is left as it is. With `retry` a release that failed too often here is
    attempted again.

    Raises:
        AgentError: as `staging.stage`; EQ508 busy.
    """
    request = GateRequest.parse(call.fields)
    with lock.hold(call.home):
        return staging.stage(call.home, request, call.response.progress).to_json()


@recovers_itself
def unstage(call: Call) -> Json:
    """Verb `unstage`: drop a candidate; `prune` removes it once nothing else refers to it.

    Raises:
        AgentError: EQ552 the split names it, EQ508 busy.
    """
    model, release = call.fields.model_name(), call.fields.sha256("release")
    with lock.hold(call.home):
        return staging.unstage(call.home, model, release).to_json()
