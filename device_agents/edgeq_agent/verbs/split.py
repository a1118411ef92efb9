"""Verb `split`: set, clear or show the A/B split of a model; runtimes apply it at their next poll."""

from __future__ import annotations

from edgeq_agent.activation import candidates, experiment, recovery
from edgeq_agent.activation.experiment import SplitChange
from edgeq_agent.calls.call import Call
from edgeq_agent.calls.fields import Fields
from edgeq_agent.releases import release_store
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Split
from edgeq_agent.storage import lock
from edgeq_agent.verbs import recovers_itself
from edgeq_agent.wire import Json

_SPLIT_FIELDS = ("arms", "salt", "experiment", "draw")


@recovers_itself
def split(call: Call) -> Json:
    """Verb `split`: with `arms` start a split, with `clear` end it, else show it; idempotent.

    Every arm names a release by its whole id: the one that serves, or a candidate. The split is in force
    while the present release serves; committing another one ends it.

    Raises:
        AgentError: EQ512 a field is not valid, EQ546 it does not describe a split, else as
            `experiment.start`.
    """
    fields = call.fields
    model = fields.model_name()
    clear = fields.flag("clear")
    with lock.hold(call.home):
        state = recovery.recover(call.home, model)
        if clear:
            return experiment.end(call.home, model).to_json()
        if "arms" in fields:
            expected = fields.sha256("base") if "base" in fields else None
            return experiment.start(call.home, state, _requested(fields, model), expected).to_json()
        release_store.need_current(call.home, model)
        return SplitChange(model, False, candidates.status(call.home, model)).to_json()


def _requested(fields: Fields, model: str) -> Split:
    body = {name: fields.raw(name) for name in _SPLIT_FIELDS if name in fields}
    requested = ab_split.parse(dict(body, schema=ab_split.SCHEMA), "split of " + model)
    for arm in requested.arms:
        Fields({"release": arm.release}).sha256("release")
    return requested
