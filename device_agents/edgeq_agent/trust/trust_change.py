"""Apply a change of trust: keys to add, keys to revoke, and the policy; all of it or nothing."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple, Sequence

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import BAD_KEY, CHANGE_REFUSED, AgentError
from edgeq_agent.trust import ed25519, signatures, trust_store
from edgeq_agent.trust.signatures import Key, Signature
from edgeq_agent.trust.trust_store import Trust
from edgeq_agent.wire import Json


class TrustChange(NamedTuple):
    """A change of the trust store.

    Attributes:
        add: the new keys, by id.
        revoke: ids of keys that shall no longer count.
        threshold: how many keys must sign a release; None leaves it as it is.
        changes: one of `trust_store.CHANGES`; None leaves it as it is.
        device_id: the device that a signed change was made for.
        sequence: the number of a signed change; 0 in one without signatures.
        resets: the counters to which those of some models are lowered.
        document: the change as it was signed.
    """

    add: dict[str, Key]
    revoke: tuple[str, ...]
    threshold: int | None
    changes: str | None
    device_id: str | None
    sequence: int
    resets: dict[str, int]
    document: Json


def parse(fields: Fields) -> TrustChange:
    """Return the change of a request.

    Raises:
        AgentError: EQ512 a field is wrong, EQ536 a key that must not be trusted.
    """
    fields.one_of("schema", (wire.TRUST_CHANGE_SCHEMA,))
    return TrustChange(
        add=dict(fields.list_of("add", _new_key)),
        revoke=tuple(fields.list_of("revoke", Fields.key_id)),
        threshold=fields.integer("threshold", 1, trust_store.MAX_KEYS) if fields.has("threshold") else None,
        changes=fields.one_of("changes", trust_store.CHANGES) if "changes" in fields else None,
        device_id=fields.text("device_id") if fields.has("device_id") else None,
        sequence=fields.integer("sequence", 1, wire.LARGEST_COUNTER, default=0),
        resets=_resets(fields.optional_object("reset_counters")),
        document=fields.json(),
    )


def authorize(
    store: Trust, change: TrustChange, signed_by: Sequence[Signature] | None, device_id: str
) -> list[str]:
    """Return the ids of the keys that signed the change; none when the login itself is the authority.

    Args:
        signed_by: the signatures; None for a change that does not claim any.

    Raises:
        AgentError: EQ538 the device follows a trust document or needs signatures, or the change was made for
            another device or is old; EQ531 to EQ534 see `signatures.check`.
    """
    if store.document is not None:
        raise AgentError(
            CHANGE_REFUSED,
            "trust",
            f"this device follows a trust document (version {store.version}), and nothing else changes it",
            expected="the next version, signed by the role root",
            hint="run `edgeq keys change` in the workspace that has the document, "
            "then `edgeq keys push --on DEVICE`",
        )
    if signed_by is None:
        if store.changes == trust_store.SIGNED and store.active:
            raise AgentError(
                CHANGE_REFUSED,
                "trust",
                "this device accepts only changes that its keys signed",
                expected="a signature of key " + " or ".join(store.active),
                got="none",
                hint="run it again with `--by KEY`, a key that the device trusts",
            )
        return []
    signers = signatures.check(
        store.keys,
        store.threshold,
        wire.TRUST_CHANGE_TYPE,
        change.document,
        signed_by,
        "change of trust",
        signatures.CHANGE_HINTS,
    )
    if change.device_id != device_id:
        raise _refused("it was made for another device", device_id, str(change.device_id))
    if change.sequence <= store.sequence:
        raise _refused(
            "it is an old change, sent again", f"a sequence above {store.sequence}", str(change.sequence)
        )
    return signers


def apply(store: Trust, change: TrustChange) -> Trust:
    """Return the store after the change; `sequence` and the counters are the caller's.

    Raises:
        AgentError: EQ536 a key was revoked before or is not known, EQ538 fewer keys remain than must sign,
            EQ512 too many keys.
    """
    keys = dict(store.keys)
    for key_id, key in change.add.items():
        present = keys.get(key_id)
        if present is not None and not present.active:
            raise _bad_key(
                key_id,
                "was revoked on this device, which is final",
                hint="make a new key: `edgeq keys new NAME`",
            )
        keys.setdefault(key_id, key)
    for key_id in change.revoke:
        present = store.keys.get(key_id)
        if present is None:
            raise _bad_key(key_id, "is not known here", hint="`edgeq keys list --on DEVICE` shows its keys")
        keys[key_id] = present._replace(active=False)
    if len(keys) > trust_store.MAX_KEYS:
        raise Fields({"add": len(keys)}, "change").refuse(
            "add", f"at most {trust_store.MAX_KEYS} keys in all, with the revoked ones"
        )
    threshold = store.threshold if change.threshold is None else change.threshold
    after = store._replace(keys=keys, changes=change.changes or store.changes, threshold=threshold)
    _check_not_locked_out(store, after)
    return after


def _check_not_locked_out(before: Trust, after: Trust) -> None:
    """Refuse a change after which no release and no signed change could have enough signatures.

    A store that is in this state already may be repaired in steps.
    """
    active = len(after.active)
    if active >= after.threshold or (
        active >= len(before.active) and after.threshold <= max(before.threshold, 1)
    ):
        return
    raise AgentError(
        CHANGE_REFUSED,
        "change of trust",
        "it would lock this device: nothing could have enough signatures any more",
        expected=f"at least {after.threshold} trusted keys",
        got=str(active),
        hint="trust another key first, or replace it in one step: `edgeq keys rotate OLD NEW --on DEVICE`; "
        "or lower the number of signatures: `edgeq keys policy --threshold N --on DEVICE`",
    )


def _resets(fields: Fields) -> dict[str, int]:
    return {
        Fields({"model": model}).model_name(): fields.integer(model, 0, wire.LARGEST_COUNTER)
        for model in fields.json()
    }


def _new_key(change: Fields, name: str) -> tuple[str, Key]:
    fields = change.object(name, "objects with public, role and name")
    try:
        public = base64.b64decode(fields.text("public").encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        public = b""
    key_id = wire.key_id(public)
    problem = ed25519.key_problem(public)
    if problem is not None:
        raise _bad_key(key_id, "must not be trusted: " + problem, hint="make a key: `edgeq keys new NAME`")
    role = fields.one_of("role", trust_store.ROLES, trust_store.PUBLISH)
    return key_id, Key(public, role, True, fields.label("name"))


def _bad_key(key_id: str, problem: str, hint: str) -> AgentError:
    return AgentError(BAD_KEY, f"key {key_id}", problem, hint=hint)


def _refused(problem: str, expected: str, got: str) -> AgentError:
    hint = "make the change again: `edgeq keys trust KEY --on DEVICE` or `edgeq keys revoke KEY --on DEVICE`"
    return AgentError(CHANGE_REFUSED, "change of trust", problem, expected=expected, got=got, hint=hint)
