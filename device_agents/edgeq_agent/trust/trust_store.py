"""The trust store: whose releases this device accepts, and the highest release of each model it committed.

No clock takes part: a release is newer when its counter is higher, and a key is good until it is revoked.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls import request
from edgeq_agent.errors import NOBODY_TRUSTED, OLD_RELEASE, TRUST_DAMAGED, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import signatures
from edgeq_agent.trust.signatures import Key
from edgeq_agent.wire import Json

SCHEMA = "edgeq.trust/1"
PUBLISH = "publish"
ROLES = (PUBLISH,)
OPERATOR = "operator"
SIGNED = "signed"
CHANGES = (OPERATOR, SIGNED)
MOST_KEYS = 64


class Trust(NamedTuple):
    """What `trust.json` says.

    Attributes:
        keys: by id.
        threshold: how many distinct active keys must have signed a release.
        changes: `operator`: whoever may log in may change the keys; `signed`: only with signatures.
        sequence: of the last signed change; an older one is not taken again.
        counters: by model, {counter, release} of the highest release that was committed.
    """

    keys: dict[str, Key]
    threshold: int
    changes: str
    sequence: int
    counters: dict[str, Json]

    @property
    def active(self) -> list[str]:
        """The ids of the keys whose signatures count."""
        return sorted(key_id for key_id, key in self.keys.items() if key.active)


EMPTY = Trust(keys={}, threshold=1, changes=OPERATOR, sequence=0, counters={})


def admit(home: Home, asked: Json) -> None:
    """Refuse an activation whose release nobody trusted signed, or that is older than what was committed.

    The lock must be held: between this look at the counters and the commit no other release may come.

    Raises:
        AgentError: EQ530 nobody is trusted here yet, EQ531 to EQ534 the signatures (see `signed.check`),
            EQ535 an old release, EQ537 the store is damaged.
    """
    store = load(home) or EMPTY
    body = request.mapping(asked, "manifest")
    subject = "release " + request.sha256(asked, "release")[:12]
    if not store.active:
        raise AgentError(
            NOBODY_TRUSTED,
            subject,
            "this device trusts no key, so it accepts no release",
            hint="`edgeq keys trust --on DEVICE` lets it trust this workspace's key",
        )
    signatures.check(store.keys, store.threshold, wire.RELEASE_TYPE, body, asked.get("signatures"), subject)
    _check_counter(home, store, body, subject)


def _check_counter(home: Home, store: Trust, body: Json, subject: str) -> None:
    model = request.model_name(body)
    counter = request.integer(body, "counter", 1, wire.LARGEST_COUNTER)
    known = store.counters.get(model)
    release = wire.digest(body)
    # What serves may be activated again, on another runtime say, also after a rollback to it.
    if known is None or counter > known["counter"] or release == release_store.current(home, model):
        return
    if counter == known["counter"] and release == known["release"]:
        return
    raise AgentError(
        OLD_RELEASE,
        f"{subject} of {model}",
        "older than what this device committed already, or another one with its counter",
        expected="a release counter above {}".format(known["counter"]),
        got=str(counter),
        hint="`edgeq rollback` goes back; `edgeq bundle` makes a new release with the next counter",
    )


def commit(home: Home, model: str, release: str) -> None:
    """Raise the model's counter to that of a release that is being committed; it never goes down.

    Called before the commit is written, and again by whoever finishes an activation that died in between.
    """
    try:
        store = load(home)
        counter = release_store.read(home, release).counter
    except AgentError:
        return  # a damaged store admits nothing; going back to an earlier release must work all the same
    if store is None or counter <= store.counters.get(model, {"counter": 0})["counter"]:
        return
    entry = {"counter": counter, "release": release}
    save(home, store._replace(counters=dict(store.counters, **{model: entry})))


def summary(home: Home) -> Json:
    """Return what `status` tells of it."""
    try:
        store = load(home)
    except AgentError as error:
        return {"keys": [], "revoked": [], "threshold": 1, "counters": {}, "problem": error.problem}
    store = store or EMPTY
    return {
        "keys": store.active,
        "revoked": sorted(set(store.keys) - set(store.active)),
        "threshold": store.threshold,
        "counters": store.counters,
        "problem": None,
    }


def load(home: Home) -> Trust | None:
    """Return the store, or None where there is none yet.

    Raises:
        AgentError: EQ537, it is there and cannot be read: then nothing is admitted.
    """
    try:
        return _parsed(files.read_json(home.trust))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, AgentError) as error:
        raise AgentError(
            TRUST_DAMAGED,
            "trust.json",
            "the device's trust store cannot be read; it admits no release",
            hint="remove it from the agent's folder on the device, then `edgeq keys trust --on DEVICE`",
        ) from error


def save(home: Home, store: Trust) -> None:
    """Write the store: the old one or the new one is there at any moment."""
    body = {
        "schema": SCHEMA,
        "keys": {key_id: described(key) for key_id, key in store.keys.items()},
        "policy": {"threshold": store.threshold, "changes": store.changes},
        "sequence": store.sequence,
        "counters": store.counters,
    }
    files.write_json(home.trust, body)


def described(key: Key) -> Json:
    """Return a key as it is stored and told."""
    return {
        "public": base64.b64encode(key.public).decode("ascii"),
        "role": key.role,
        "state": "active" if key.active else "revoked",
        "name": key.name,
    }


def _parsed(body: Any) -> Trust:
    if body["schema"] != SCHEMA:
        raise ValueError("another schema")
    keys = {key_id: _key(key_id, entry) for key_id, entry in body["keys"].items()}
    for model, known in body["counters"].items():
        request.model_name({"model": model})
        request.integer(known, "counter", 1, wire.LARGEST_COUNTER)
        request.sha256(known, "release")
    policy = body["policy"]
    if policy["changes"] not in CHANGES:
        raise ValueError("an unknown policy")
    return Trust(
        keys=keys,
        threshold=request.integer(policy, "threshold", 1, MOST_KEYS),
        changes=policy["changes"],
        sequence=request.integer(body, "sequence", 0, wire.LARGEST_COUNTER),
        counters=body["counters"],
    )


def _key(key_id: str, entry: Json) -> Key:
    public = base64.b64decode(entry["public"], validate=True)
    if (
        wire.key_id(public) != key_id
        or entry["role"] not in ROLES
        or entry["state"] not in ("active", "revoked")
    ):
        raise binascii.Error("a damaged key")
    return Key(public, entry["role"], entry["state"] == "active", str(entry["name"]))
