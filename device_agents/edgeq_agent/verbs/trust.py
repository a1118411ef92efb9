"""Verb `trust`: show the trusted keys and the policy; add and revoke keys, change the policy."""

from __future__ import annotations

from edgeq_agent.activation import states
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import AgentError
from edgeq_agent.platforms import identity
from edgeq_agent.releases import release_store
from edgeq_agent.storage import journal, lock
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import signatures, trust_change, trust_store
from edgeq_agent.trust.trust_store import ReleaseCounter, Trust
from edgeq_agent.wire import Json


def run(call: Call) -> Json:
    """Verb `trust`: without `change` it shows the store; with one it applies all of it or nothing.

    With `first` a change applies only where no key is known yet: of two workspaces that enrol the device at
    once, one becomes its owner.

    Raises:
        AgentError: EQ536 a key must not be trusted or is not known, EQ537 the store is damaged, EQ538 the
            policy or the signed change itself refuses it, EQ531 to EQ534 its signatures.
    """
    home = call.home
    if "change" not in call.fields:
        return _to_json(home, trust_store.load(home) or trust_store.EMPTY, changed=False)
    change = trust_change.parse(call.fields.object("change"))
    signed_by = signatures.parse(call.fields) if call.fields.has("signatures") else None
    first = call.fields.flag("first")
    with lock.hold(home):
        stored = trust_store.load(home)
        before = stored or trust_store.EMPTY._replace(counters=_committed_counters(home))
        if first and before.keys:
            return _to_json(home, before, changed=False)
        signers = trust_change.authorize(before, change, signed_by, identity.device_id(home))
        after = trust_change.apply(before, change)
        if signers:
            after = after._replace(sequence=change.sequence)
        if after == stored:
            return _to_json(home, after, changed=False)
        trust_store.save(home, after)
        journal.append(
            home,
            "trust",
            by=signers or [trust_store.OPERATOR],
            added=sorted(set(after.active) - set(before.active)),
            revoked=sorted(set(before.active) - set(after.active)),
            threshold=after.threshold,
            changes=after.changes,
        )
    return _to_json(home, after, changed=True)


def _committed_counters(home: Home) -> dict[str, ReleaseCounter]:
    """Return the counters of what was committed before the store existed, or before it was lost."""
    counters: dict[str, ReleaseCounter] = {}
    for model in home.model_names():
        for release in states.read(home, model).runtimes:
            try:
                counter = release_store.read(home, release).counter
            except AgentError:
                continue  # the release was pruned
            if counter > counters.get(model, ReleaseCounter(0, "")).counter:
                counters[model] = ReleaseCounter(counter, release)
    return counters


def _to_json(home: Home, store: Trust, changed: bool) -> Json:
    return {
        "device_id": identity.device_id(home),
        "keys": [dict(trust_store.key_to_json(key), id=key_id) for key_id, key in sorted(store.keys.items())],
        "threshold": store.threshold,
        "changes": store.changes,
        "sequence": store.sequence,
        "counters": trust_store.counters_to_json(store),
        "changed": changed,
    }
