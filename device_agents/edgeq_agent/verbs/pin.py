"""Verbs `pin` and `unpin`: releases that stay on the device until somebody lets them go."""

from __future__ import annotations

from edgeq_agent.activation import recovery
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.releases import pins, release_store
from edgeq_agent.storage import journal, lock
from edgeq_agent.wire import Json


def pin(call: Call) -> Json:
    """Verb `pin`: keep a release, also when nothing refers to it any more; pinning twice changes nothing.

    Raises:
        AgentError: EQ509 the release is not on the device, EQ510 no such model, EQ512 it is another model's.
    """
    return _change(call, add=True)


def unpin(call: Call) -> Json:
    """Verb `unpin`: let a release go when nothing else refers to it; `prune` removes it.

    Raises:
        AgentError: EQ510 no such model.
    """
    return _change(call, add=False)


def _change(call: Call, add: bool) -> Json:
    model = request.model_name(call.request)
    with lock.hold(call.home):
        recovery.recover(call.home, model)
        current = release_store.need_current(call.home, model)
        release = request.sha256(call.request, "release") if "release" in call.request else current
        if add:
            owner = release_store.read(call.home, release).model
            if owner != model:
                raise request.bad("release", f"a release of {model}", f"one of {owner}")
        before = pins.read(call.home, model)
        after = [name for name in before if name != release] + ([release] if add else [])
        changed = (release in before) is not add
        pinned = after if changed else before
        body: Json = {"model": model, "release": release, "changed": changed, "pins": pinned}
        if changed:
            pins.write(call.home, model, after)
            body.update(journal.note(call.home, "pin" if add else "unpin", model=model, release=release))
        return body
