"""Verbs `pin` and `unpin`: keep a release on the device, or stop keeping it."""

from __future__ import annotations

from typing import Callable

from edgeq_agent.activation import recovery
from edgeq_agent.calls.call import Call
from edgeq_agent.releases import pins, release_store
from edgeq_agent.releases.pins import PinChange
from edgeq_agent.storage import journal, lock
from edgeq_agent.storage.home import Home
from edgeq_agent.verbs import recovers_itself
from edgeq_agent.wire import Json


@recovers_itself
def pin(call: Call) -> Json:
    """Verb `pin`: keep a release even when nothing refers to it; default: the one that serves; idempotent.

    Raises:
        AgentError: EQ509 the release is not on the device, EQ510 no such model, EQ512 it is another model's.
    """
    return _change(call, "pin", pins.pin)


@recovers_itself
def unpin(call: Call) -> Json:
    """Verb `unpin`: stop keeping a release; `prune` removes it when nothing else refers to it.

    Raises:
        AgentError: EQ510 no such model.
    """
    return _change(call, "unpin", pins.unpin)


def _change(call: Call, event: str, change: Callable[[Home, str, str], PinChange]) -> Json:
    model = call.fields.model_name()
    with lock.hold(call.home):
        recovery.recover(call.home, model)
        current = release_store.need_current(call.home, model)
        release = call.fields.sha256("release") if "release" in call.fields else current
        result = change(call.home, model, release)
        body: Json = {"model": model, "release": release, "changed": result.changed, "pins": result.pins}
        if result.changed:
            body.update(journal.note(call.home, event, model=model, release=release))
        return body
