"""Verb `trust`: shows whom the device trusts; adds and revokes keys; sets the policy."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

from edgeq_agent import wire
from edgeq_agent.activation import states
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import BAD_KEY, CHANGE_REFUSED, AgentError
from edgeq_agent.platforms import identity
from edgeq_agent.releases import release_store
from edgeq_agent.storage import journal, lock
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import ed25519, trust_store
from edgeq_agent.trust import signatures as signed
from edgeq_agent.trust.signatures import Key
from edgeq_agent.trust.trust_store import Trust
from edgeq_agent.wire import Json


def answer(call: Call) -> Json:
    """Verb `trust`: without `change` it tells; with one it applies it, whole or not at all.

    With `first` a change applies only where no key is known yet: two workspaces that enrol the device at once
    cannot both become its owner.

    Raises:
        AgentError: EQ536 a key that cannot be trusted or is not known, EQ537 the store is damaged, EQ538 the
            policy or a signed change's own terms refuse it, EQ531 to EQ534 its signatures.
    """
    if "change" not in call.request:
        return _told(call.home, trust_store.load(call.home) or trust_store.EMPTY, changed=False)
    change = request.mapping(call.request, "change")
    if change.get("schema") != wire.TRUST_CHANGE_SCHEMA:
        raise request.bad("change.schema", wire.TRUST_CHANGE_SCHEMA, change.get("schema"))
    with lock.hold(call.home):
        known = trust_store.load(call.home)
        before = known or trust_store.EMPTY._replace(counters=_committed(call.home))
        if request.flag(call.request, "first", False) and before.keys:
            return _told(call.home, before, changed=False)
        signers = _authorized(call, before, change)
        after = _applied(before, change)
        if signers:
            after = after._replace(sequence=change["sequence"])
        if after == known:
            return _told(call.home, after, changed=False)
        trust_store.save(call.home, after)
        journal.append(
            call.home,
            "trust",
            by=signers or [trust_store.OPERATOR],
            added=sorted(set(after.active) - set(before.active)),
            revoked=sorted(set(before.active) - set(after.active)),
            threshold=after.threshold,
            changes=after.changes,
        )
    return _told(call.home, after, changed=True)


def _authorized(call: Call, store: Trust, change: Json) -> list[str]:
    """Return the ids of the keys that signed the change; none where the login itself is the authority."""
    signatures = call.request.get("signatures")
    if signatures is None:
        if store.changes == trust_store.SIGNED and store.active:
            raise AgentError(
                CHANGE_REFUSED,
                "trust",
                "this device takes only changes that its keys signed",
                expected="a signature of key " + " or ".join(store.active),
                got="none",
                hint="run it again with `--by KEY`, a key that the device trusts",
            )
        return []
    signers = signed.check(
        store.keys, store.threshold, wire.TRUST_CHANGE_TYPE, change, signatures, "change of trust"
    )
    mine = identity.device_id(call.home)
    if change.get("device_id") != mine:
        raise _refused("made for another device", mine, str(change.get("device_id")))
    sequence = request.integer(change, "sequence", 1, wire.LARGEST_COUNTER)
    if sequence <= store.sequence:
        raise _refused("an old change, offered again", f"a sequence above {store.sequence}", str(sequence))
    return signers


def _refused(problem: str, expected: str, got: str) -> AgentError:
    hint = "make the change again: `edgeq keys trust` or `edgeq keys revoke`"
    return AgentError(CHANGE_REFUSED, "change of trust", problem, expected=expected, got=got, hint=hint)


def _applied(store: Trust, change: Json) -> Trust:
    keys = dict(store.keys)
    for entry in _list(change, "add"):
        key_id, key = _new_key(entry)
        present = keys.get(key_id)
        if present is not None and not present.active:
            raise _bad_key(key_id, "was revoked here, and stays so", hint="make a new key: `edgeq keys new`")
        if present is None:
            keys[key_id] = key
    for key_id in _list(change, "revoke"):
        present = keys.get(request.key_id({"revoke": key_id}, "revoke"))
        if present is None:
            raise _bad_key(key_id, "not known here", hint="`edgeq keys list --on DEVICE` shows its keys")
        keys[key_id] = present._replace(active=False)
    if len(keys) > trust_store.MOST_KEYS:
        raise request.bad("change.add", f"at most {trust_store.MOST_KEYS} keys in all", len(keys))
    after = store._replace(keys=keys, changes=_changes(change, store.changes))
    threshold = request.integer(change, "threshold", 1, trust_store.MOST_KEYS, default=store.threshold)
    if threshold != store.threshold and threshold > len(after.active):
        raise _refused("more signatures than there are keys", f"at most {len(after.active)}", str(threshold))
    return after._replace(threshold=threshold)


def _changes(change: Json, default: str) -> str:
    value = change.get("changes", default)
    if value not in trust_store.CHANGES:
        raise request.bad("change.changes", " or ".join(trust_store.CHANGES), value)
    return str(value)


def _list(change: Json, field: str) -> list[Any]:
    value = change.get(field, [])
    if not isinstance(value, list):
        raise request.bad("change." + field, "a list", value)
    return value


def _new_key(entry: Any) -> tuple[str, Key]:
    if not isinstance(entry, dict):
        raise request.bad("change.add", "objects with public, role and name", entry)
    try:
        public = base64.b64decode(request.text(entry, "public").encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        public = b""
    key_id = wire.key_id(public)
    problem = ed25519.problem_of(public)
    if problem is not None:
        raise _bad_key(key_id, "no key that can be trusted: " + problem, hint="make one: `edgeq keys new`")
    role = request.text(entry, "role", trust_store.PUBLISH)
    if role not in trust_store.ROLES:
        raise request.bad("change.add.role", " or ".join(trust_store.ROLES), role)
    return key_id, Key(public, role, True, request.label(entry, "name"))


def _bad_key(key_id: str, problem: str, hint: str) -> AgentError:
    return AgentError(BAD_KEY, f"key {key_id}", problem, hint=hint)


def _committed(home: Home) -> dict[str, Json]:
    """Return the counters of what was committed before there was a store, or before it was lost."""
    found: dict[str, Json] = {}
    for model in sorted(os.listdir(home.models)):
        for release in states.load(home, model).runtimes:
            try:
                counter = release_store.read(home, release).counter
            except AgentError:
                continue  # not on the device any more
            if counter > found.get(model, {"counter": 0})["counter"]:
                found[model] = {"counter": counter, "release": release}
    return found


def _told(home: Home, store: Trust, changed: bool) -> Json:
    return {
        "device_id": identity.device_id(home),
        "keys": [dict(trust_store.described(key), id=key_id) for key_id, key in sorted(store.keys.items())],
        "threshold": store.threshold,
        "changes": store.changes,
        "sequence": store.sequence,
        "counters": store.counters,
        "changed": changed,
    }
