"""The trust document of a fleet: who may sign what, in one numbered file that the role root signs.

    {"schema": "edgeq.trust-document/1", "version": 3,
     "keys": {"<key id>": {"public": "<base64>", "name": "release-2026"}, ...},
     "roles": {"root": {"keys": ["<key id>", ...], "threshold": 2}, "release": {...}},
     "revoked": ["<key id>", ...],            final: these never count again
     "counters": {"kws": {"version": 3, "counter": 17, "void": ["<release>", ...]}},   resets
     "changes": "operator" | "signed",        whether a login alone may replace the document
     "expires_s": 1798761600}                 seconds since 1970, or null

A document is for every device of the fleet alike, so it names no device.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import BAD_KEY, CHANGE_REFUSED, AgentError
from edgeq_agent.trust import ed25519
from edgeq_agent.trust.signatures import Key
from edgeq_agent.wire import Json

OPERATOR = "operator"
SIGNED = "signed"
CHANGES = (OPERATOR, SIGNED)
ROOT = "root"
RELEASE = "release"
PUBLISH = "publish"
MAX_KEYS = 64
# Revoked keys stay in the document.
MAX_NAMED_KEYS = 256
MAX_VOID = 64
_LATEST_S = 1 << 40


class Role(NamedTuple):
    """The keys of a role, and how many different ones of them must sign."""

    keys: tuple[str, ...]
    threshold: int


class CounterReset(NamedTuple):
    """A reset of a model's release counter.

    Attributes:
        version: of the document that ordered it; later documents repeat it.
        counter: a device lowers its highest counter to this one; it never raises it.
        void: releases that no device accepts any more.
    """

    version: int
    counter: int
    void: tuple[str, ...]


class TrustDocument(NamedTuple):
    """A parsed trust document.

    Attributes:
        keys: all keys that it names, by id; a revoked one is not active.
        resets: by model.
        changes: `operator`: a login alone may replace the document; `signed`: it may not; None leaves it.
        expires_s: from then on the device admits no new release; None for never.
        document: the document as it was signed.
    """

    version: int
    keys: dict[str, Key]
    root: Role
    release: Role
    revoked: tuple[str, ...]
    resets: dict[str, CounterReset]
    changes: str | None
    expires_s: int | None
    document: Json

    def keys_of(self, role: Role) -> dict[str, Key]:
        """Return the keys of a role, by id."""
        return {key_id: self.keys[key_id] for key_id in role.keys}


def parse(fields: Fields) -> TrustDocument:
    """Return a trust document; its signatures and the points of its keys are not checked here.

    Raises:
        AgentError: EQ512 a field is wrong; EQ538 a role could never sign again.
    """
    fields.one_of("schema", (wire.TRUST_DOCUMENT_SCHEMA,))
    revoked = tuple(fields.list_of("revoked", Fields.key_id, high=MAX_NAMED_KEYS))
    entries = fields.object("keys")
    if len(entries.json()) > MAX_NAMED_KEYS:
        raise fields.refuse("keys", f"at most {MAX_NAMED_KEYS} keys")
    keys = {key_id: _key(entries, key_id, key_id not in revoked) for key_id in entries.json()}
    if any(key_id not in keys for key_id in revoked):
        raise fields.refuse("revoked", "ids of keys that the document has")
    roles = fields.object("roles")
    resets = fields.optional_object("counters")
    version = fields.integer("version", 1, wire.LARGEST_COUNTER)
    return TrustDocument(
        version=version,
        keys=keys,
        root=_role(roles, ROOT, keys),
        release=_role(roles, RELEASE, keys),
        revoked=revoked,
        resets={
            Fields({"model": model}).model_name(): _reset(resets.object(model), version)
            for model in resets.json()
        },
        changes=fields.one_of("changes", CHANGES) if fields.has("changes") else None,
        expires_s=fields.integer("expires_s", 1, _LATEST_S) if fields.has("expires_s") else None,
        document=fields.json(),
    )


def check_points(document: TrustDocument, known: dict[str, Key]) -> None:
    """Refuse keys under which anything could be signed; keys that the device knows were checked before.

    Raises:
        AgentError: EQ536.
    """
    for key_id, key in document.keys.items():
        problem = None if key_id in known else ed25519.key_problem(key.public)
        if problem is not None:
            hint = "make a key: `edgeq keys new NAME`"
            raise AgentError(BAD_KEY, f"key {key_id}", "must not be trusted: " + problem, hint=hint)


def _key(entries: Fields, key_id: str, active: bool) -> Key:
    fields = entries.object(key_id, "objects with public and name")
    try:
        public = base64.b64decode(fields.text("public").encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        public = b""
    if wire.key_id(public) != key_id:
        raise fields.refuse("public", "the 32 bytes of the key with this id, in base64")
    return Key(public, PUBLISH, active, fields.label("name"))


def _role(roles: Fields, name: str, keys: dict[str, Key]) -> Role:
    fields = roles.object(name)
    ids = tuple(fields.list_of("keys", Fields.key_id, f"at most {MAX_KEYS} ids of keys", high=MAX_KEYS))
    if len(set(ids)) < len(ids):
        raise fields.refuse("keys", "each key once")
    if any(key_id not in keys or not keys[key_id].active for key_id in ids):
        raise fields.refuse("keys", "ids of keys that the document has and does not revoke")
    threshold = fields.integer("threshold", 1, MAX_KEYS)
    if threshold > len(ids):
        raise AgentError(
            CHANGE_REFUSED,
            "trust document",
            f"the role {name} could never sign again",
            expected=f"at least {threshold} keys",
            got=str(len(ids)),
            hint="add a key to the role or lower its threshold in the same document: `edgeq keys change`",
        )
    return Role(ids, threshold)


def _reset(fields: Fields, version: int) -> CounterReset:
    return CounterReset(
        version=fields.integer("version", 1, version),
        counter=fields.integer("counter", 0, wire.LARGEST_COUNTER),
        void=tuple(fields.list_of("void", Fields.sha256, f"at most {MAX_VOID} releases", high=MAX_VOID)),
    )
