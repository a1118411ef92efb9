"""Verb `trust`: show the trusted keys and the policy, change them, or follow a new trust document."""

from __future__ import annotations

from edgeq_agent.activation import states
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import AgentError
from edgeq_agent.platforms import identity
from edgeq_agent.releases import release_store
from edgeq_agent.storage import journal, lock
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import signatures, trust_change, trust_store, trust_succession
from edgeq_agent.trust.signatures import Signature
from edgeq_agent.trust.trust_change import TrustChange
from edgeq_agent.trust.trust_store import ReleaseCounter, Trust
from edgeq_agent.wire import Json


def run(call: Call) -> Json:
    """Verb `trust`: without arguments it shows the store; else it applies all of a change or nothing.

    The change is `change`, for this device alone, or `documents`: trust documents in the order of their
    versions. With `first` it applies only where no key is known yet: of two workspaces that enrol the device
    at once, one becomes its owner. With `by_login` the login is the authority for the documents.

    Raises:
        AgentError: EQ536 a key must not be trusted or is not known, EQ537 the store is damaged, EQ538 the
            policy, the state of the store or the change itself refuses it, EQ531 to EQ534 its signatures.
    """
    home = call.home
    documents = call.fields.list_of(
        "documents",
        trust_succession.parse,
        f"a list of at most {trust_succession.MAX_DOCUMENTS} signed trust documents",
        high=trust_succession.MAX_DOCUMENTS,
    )
    if "change" not in call.fields and not documents:
        return _to_json(home, trust_store.load(home) or trust_store.EMPTY, changed=False)
    change = trust_change.parse(call.fields.object("change")) if "change" in call.fields else None
    signed_by = signatures.parse(call.fields) if call.fields.has("signatures") else None
    first, by_login = call.fields.flag("first"), call.fields.flag("by_login")
    with lock.hold(home):
        stored = trust_store.load(home)
        before = stored or trust_store.EMPTY._replace(counters=_committed_counters(home))
        if first and (before.keys or before.document):
            return _to_json(home, before, changed=False)
        after = before
        by: tuple[str, ...] = (trust_store.OPERATOR,)
        if change is not None:
            after, by = _changed(home, before, change, signed_by)
        for document in documents:
            after, signers = trust_succession.follow(home, after, document, by_login)
            by = signers or by
        if after == stored:
            return _to_json(home, after, changed=False)
        trust_store.save(home, after)
        journal.append(
            home,
            "trust",
            by=list(by),
            added=sorted(set(after.active) - set(before.active)),
            revoked=sorted(set(before.active) - set(after.active)),
            threshold=after.threshold,
            changes=after.changes,
            **_also(before, after),
        )
    return _to_json(home, after, changed=True)


def _changed(
    home: Home, before: Trust, change: TrustChange, signed_by: tuple[Signature, ...] | None
) -> tuple[Trust, tuple[str, ...]]:
    signers = trust_change.authorize(before, change, signed_by, identity.device_id(home))
    after = trust_change.apply(before, change)
    if signers:
        after = after._replace(sequence=change.sequence)
    for model, counter in change.resets.items():
        after = trust_store.reset_counter(home, after, model, counter)
    return after, tuple(signers) or (trust_store.OPERATOR,)


def _also(before: Trust, after: Trust) -> Json:
    """Return what the journal says only where it applies."""
    lowered = {
        model: after.counters[model].counter if model in after.counters else 0
        for model, highest in before.counters.items()
        if after.counters.get(model) != highest
    }
    also: Json = {"reset_counters": lowered} if lowered else {}
    if after.version != before.version:
        also["version"] = after.version
    return also


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
    return dict(
        trust_store.document_to_json(store),
        device_id=identity.device_id(home),
        keys=[dict(trust_store.key_to_json(key), id=key_id) for key_id, key in sorted(store.keys.items())],
        threshold=store.threshold,
        changes=store.changes,
        sequence=store.sequence,
        counters=trust_store.counters_to_json(store),
        changed=changed,
    )
