"""Verb `prune`: remove what nothing refers to."""

from __future__ import annotations

from edgeq_agent.activation import recovery, retention
from edgeq_agent.calls.call import Call
from edgeq_agent.storage import journal, lock, scratch
from edgeq_agent.verbs import recovers_itself
from edgeq_agent.wire import Json


@recovers_itself
def prune(call: Call) -> Json:
    """Verb `prune`: remove releases, blobs, runtimes and agent files that nothing refers to.

    With `dry_run` nothing is removed.

    Raises:
        AgentError: EQ508 busy.
    """
    dry_run = call.fields.flag("dry_run")
    with lock.hold(call.home):
        scratch.sweep(call.home)
        for model in call.home.model_names():
            recovery.recover(call.home, model)
        references = retention.find_references(call.home)
        unreferenced = retention.find_unreferenced(call.home, references)
        body = dict(unreferenced.to_json(), dry_run=dry_run, kept=references.to_json())
        if unreferenced and not dry_run:
            retention.remove(call.home, references, unreferenced)
            body.update(journal.note(call.home, "prune", **unreferenced.counts()))
        return body
