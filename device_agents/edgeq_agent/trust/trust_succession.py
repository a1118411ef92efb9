"""Replace the trust document of this device by its successor, which the old and the new root have signed."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields, bad
from edgeq_agent.errors import BAD_KEY, CHANGE_REFUSED, UNKNOWN_KEY, AgentError
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import signatures, trust_document, trust_store
from edgeq_agent.trust.signatures import Key, Signature
from edgeq_agent.trust.trust_document import TrustDocument
from edgeq_agent.trust.trust_store import Trust

# A device that was away for longer gets the rest in further calls.
MAX_DOCUMENTS = 16
# Far above what 256 keys and the resets of some models take.
MAX_DOCUMENT_BYTES = 1 << 20
_SUBJECT = "trust document"


class SignedDocument(NamedTuple):
    """A trust document with its signatures."""

    document: TrustDocument
    signatures: tuple[Signature, ...]


class Succession(NamedTuple):
    """The store after a document, and who authorized it: ids of root keys, or the operator's login."""

    store: Trust
    by: tuple[str, ...]


def parse(request: Fields, name: str) -> SignedDocument:
    """Return the signed document in a field of a request.

    Raises:
        AgentError: EQ512, EQ538 as `trust_document.parse`.
    """
    entry = request.object(name, "objects with document and signatures")
    return SignedDocument(trust_document.parse(entry.object("document")), signatures.parse(entry))


def follow(home: Home, store: Trust, signed: SignedDocument, by_login: bool) -> Succession:
    """Return the store after the document; the same store where the document is in force already.

    Args:
        by_login: the login itself is the authority, instead of the old root. Only where the device's policy
            is `operator`, or where it trusts no key yet. Versions may then be left out, not repeated.

    Raises:
        AgentError: EQ538 the document is old, a version is missing, or the policy forbids the login's
            authority; EQ531 to EQ534 not enough keys of the old or of the new root have signed; EQ536 a key
            must not be trusted, or was revoked before.
    """
    document = signed.document
    if store.document is not None and document.document == store.document.document:
        return Succession(store, ())
    fresh = not store.keys and store.document is None
    if by_login and store.root.keys and store.changes != trust_document.OPERATOR:
        raise _refused(
            "the policy of this device does not let a login replace its keys",
            "signatures of the role root",
            "none",
            "sign the document with keys of the present root: `edgeq keys sign FILE --by KEY`",
        )
    free = by_login or fresh
    _check_version(store, document, free)
    _check_revoked(store, document)
    by = [] if free else _signers(store.document, store, signed)
    _check(document.keys_of(document.root), document.root.threshold, signed, "of the new root")
    trust_document.check_points(document, store.keys)
    size_bytes = len(wire.canonical(document.document))
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise bad("documents", f"at most {MAX_DOCUMENT_BYTES} bytes each", size_bytes)
    return Succession(_after(home, store, document), tuple(by) or (trust_document.OPERATOR,))


def _check_version(store: Trust, document: TrustDocument, free: bool) -> None:
    if document.version <= store.version:
        problem = "it is an old document, sent again"
        if document.version == store.version:
            problem = "the device has another document with the same version"
        raise _refused(
            problem,
            f"version {store.version + 1}",
            str(document.version),
            "`edgeq keys show` shows the workspace's document; `edgeq keys list --on DEVICE` the device's",
        )
    if not free and document.version != store.version + 1:
        raise _refused(
            "a version is missing: each one must be signed by the root of the one before",
            f"version {store.version + 1}",
            str(document.version),
            "`edgeq keys push --on DEVICE` sends all versions in order",
        )


def _check_revoked(store: Trust, document: TrustDocument) -> None:
    for key_id in (*document.root.keys, *document.release.keys):
        known = store.keys.get(key_id)
        if known is not None and not known.active:
            raise AgentError(
                BAD_KEY,
                f"key {key_id}",
                "was revoked on this device, which is final",
                hint="make a new key (`edgeq keys new NAME`) and give it the role: `edgeq keys change`",
            )


def _signers(current: TrustDocument | None, store: Trust, signed: SignedDocument) -> list[str]:
    keys = store.keys if current is None else current.keys_of(current.root)
    return _check(keys, store.root.threshold, signed, "of the present root")


def _check(keys: dict[str, Key], threshold: int, signed: SignedDocument, role: str) -> list[str]:
    subject = f"{_SUBJECT} {signed.document.version}"
    document, given = signed.document.document, signed.signatures
    try:
        return signatures.check(
            keys, threshold, wire.TRUST_DOCUMENT_TYPE, document, given, subject, signatures.CHANGE_HINTS
        )
    except AgentError as error:
        error.problem = f"{error.problem} {role}" if error.code != UNKNOWN_KEY else f"no key {role} signed it"
        raise


def _after(home: Home, store: Trust, document: TrustDocument) -> Trust:
    keys = {key_id: key for key_id, key in store.keys.items() if not key.active}
    keys.update((key_id, document.keys[key_id]) for key_id in document.revoked)
    keys.update(document.keys_of(document.release))
    after = store._replace(
        keys=keys,
        threshold=document.release.threshold,
        changes=document.changes or store.changes,
        document=document,
    )
    for model, reset in document.resets.items():
        if reset.version > store.version:
            after = trust_store.reset_counter(home, after, model, reset.counter, reset.void)
    return after


def _refused(problem: str, expected: str, got: str, hint: str) -> AgentError:
    return AgentError(CHANGE_REFUSED, _SUBJECT, problem, expected=expected, got=got, hint=hint)
