"""Verbs `soak` and `recover`: end soaks that are over; finish or undo interrupted activations."""

from __future__ import annotations

from edgeq_agent.activation import recovery, state_record, states
from edgeq_agent.calls.call import Call
from edgeq_agent.releases import release_store
from edgeq_agent.storage import lock
from edgeq_agent.verbs import recovers_itself
from edgeq_agent.wire import Json


@recovers_itself
def end_soak(call: Call) -> Json:
    """Verb `soak`: look at a model's soak and end it when it is over; without a soak nothing changes.

    Raises:
        AgentError: EQ510 no such model, EQ508 busy.
    """
    model = call.fields.model_name()
    with lock.hold(call.home):
        if states.read(call.home, model).state == state_record.NONE:
            release_store.need_current(call.home, model)
        return dict(recovery.recover_model(call.home, model).to_json(), model=model)


@recovers_itself
def recover(call: Call) -> Json:
    """Verb `recover`: recover every model, as the service does when the device has booted.

    Raises:
        AgentError: EQ508 busy.
    """
    results = recovery.recover_all(call.home)
    return {"models": {model: result.to_json() for model, result in results.items()}}
