"""The trust document of a fleet: roles, keys and thresholds; each new version amends the one before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from edgeq.bundle.keys import PublicKey, SigningKey
from edgeq.bundle.manifest import ModelName, Sha256
from edgeq.errors import TrustDocumentError
from edgeq_agent import wire

T = TypeVar("T")

ROOT = "root"
RELEASE = "release"
MAX_KEYS = 64
MAX_NAMED_KEYS = 256
MAX_VOID = 64
MAX_SIGNATURES = 16
# A device stores the document, and takes no larger one.
MAX_BYTES = 1 << 20

# JSON has lists only; a frozen value holds a tuple.
Items = Annotated[tuple[T, ...], Strict(False)]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Version = Annotated[int, Field(ge=1, le=wire.LARGEST_COUNTER)]


class _Part(BaseModel):
    # Strict, as on the device: "1" is not a number.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class KeyEntry(_Part):
    """A key of the document."""

    public: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")]


class Role(_Part):
    """The keys of a role, and how many different ones of them must sign."""

    keys: Annotated[Items[KeyId], Field(max_length=MAX_KEYS)]
    threshold: Annotated[int, Field(ge=1, le=MAX_KEYS)]


class Roles(_Part):
    """`root` signs the next document; `release` signs releases."""

    root: Role
    release: Role


class CounterReset(_Part):
    """A device lowers the model's highest counter to this one, once, and accepts no void release."""

    version: Version
    counter: Annotated[int, Field(ge=0, le=wire.LARGEST_COUNTER)]
    void: Annotated[Items[Sha256], Field(max_length=MAX_VOID)] = ()


class TrustDocument(_Part):
    """One version of the trust document.

    Attributes:
        revoked: ids of keys that never count again.
        counters: resets by model; `version` of each is that of the document that ordered it.
        changes: `operator`: a login alone may replace the document; `signed`: only the root may.
        expires_s: seconds since 1970, from which on devices admit no new release; None for never.
    """

    schema_name: Annotated[Literal["edgeq.trust-document/1"], Field(alias="schema")]
    version: Version
    keys: Annotated[Mapping[KeyId, KeyEntry], Field(max_length=MAX_NAMED_KEYS)]
    roles: Roles
    revoked: Annotated[Items[KeyId], Field(max_length=MAX_NAMED_KEYS)] = ()
    counters: Mapping[ModelName, CounterReset] = {}
    changes: Literal["operator", "signed"] | None = None
    expires_s: Annotated[int, Field(ge=1, le=2**40)] | None = None

    def role(self, name: str) -> Role:
        """Return a role by its name."""
        return self.roles.root if name == ROOT else self.roles.release

    def to_body(self) -> dict[str, Any]:
        """Return the document as it is signed."""
        return self.model_dump(mode="json", by_alias=True)

    def name_of(self, key_id: str) -> str:
        """Return a key's name and id for a message."""
        entry = self.keys.get(key_id)
        return f"{entry.name} ({key_id})" if entry else key_id


class _SignatureEntry(_Part):
    key: KeyId
    sig: Annotated[str, Field(min_length=1)]


class _SignedEntry(_Part):
    document: Mapping[str, Any]
    signatures: Annotated[Items[_SignatureEntry], Field(max_length=MAX_SIGNATURES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySignature:
    """A signature over a document, with the id of its key."""

    key_id: str
    value: bytes

    def to_request(self) -> dict[str, str]:
        """Return it in the agent's format."""
        return {"key": self.key_id, "sig": base64.b64encode(self.value).decode("ascii")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """A trust document with signatures; whether they are enough is not decided here.

    Attributes:
        body: the document as it was signed, with the fields that this version does not know.
    """

    document: TrustDocument
    body: Mapping[str, Any]
    signatures: tuple[KeySignature, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 of the document; devices report it."""
        return wire.digest(dict(self.body))

    def to_request(self) -> dict[str, Any]:
        """Return it in the agent's format, which is that of the file, too."""
        return {"document": dict(self.body), "signatures": [each.to_request() for each in self.signatures]}

    def signed_by(self, keys: Iterable[SigningKey]) -> SignedDocument:
        """Return it with the signatures of these keys added; a key signs once."""
        message = wire.signed_bytes(wire.TRUST_DOCUMENT_TYPE, dict(self.body))
        present = {each.key_id for each in self.signatures}
        added = {
            key.public.id: KeySignature(key_id=key.public.id, value=key.sign(message))
            for key in keys
            if key.public.id not in present
        }
        return replace(self, signatures=(*self.signatures, *(added[key_id] for key_id in sorted(added))))

    def valid_signers(self, keys: Mapping[str, KeyEntry]) -> frozenset[str]:
        """Return the ids of those of the given keys whose signatures match the document."""
        message = wire.signed_bytes(wire.TRUST_DOCUMENT_TYPE, dict(self.body))
        return frozenset(
            each.key_id
            for each in self.signatures
            if each.key_id in keys and _matches(keys[each.key_id], message, each.value)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What the next version changes.

    Attributes:
        add_root, add_release: keys that get the role.
        drop_root, drop_release: ids of keys that lose the role; they are not revoked.
        revoke: ids of keys that never count again, in any role.
        reset_counters: by model, the counter to which devices lower theirs.
        void: by model, releases that no device accepts any more.
        never_expires: remove the date of expiry.
    """

    add_root: Sequence[PublicKey] = ()
    add_release: Sequence[PublicKey] = ()
    drop_root: Sequence[str] = ()
    drop_release: Sequence[str] = ()
    revoke: Sequence[str] = ()
    root_threshold: int | None = None
    release_threshold: int | None = None
    reset_counters: Mapping[str, int] | None = None
    void: Mapping[str, Sequence[str]] | None = None
    changes: str | None = None
    expires_s: int | None = None
    never_expires: bool = False


def parse_document(body: object, *, subject: str) -> TrustDocument:
    """Parse and check a trust document.

    Raises:
        TrustDocumentError: it does not follow the schema, or a role could never sign.
    """
    try:
        document = TrustDocument.model_validate(body)
    except ValidationError as error:
        raise TrustDocumentError(subject, _fault(error)) from error
    size_bytes = len(wire.canonical(body))
    if size_bytes > MAX_BYTES:
        raise TrustDocumentError(subject, expected=f"at most {MAX_BYTES} bytes", got=str(size_bytes))
    for key_id, entry in document.keys.items():
        if _public(entry) is None or wire.key_id(_public(entry) or b"") != key_id:
            raise TrustDocumentError(subject, f"key {key_id} is not the Ed25519 key of this id")
    if not set(document.revoked) <= set(document.keys):
        raise TrustDocumentError(subject, "it revokes a key that it does not have")
    if any(reset.version > document.version for reset in document.counters.values()):
        raise TrustDocumentError(subject, "a counter reset is from a later version")
    for name in (ROOT, RELEASE):
        _check_role(document, name, subject)
    return document


def parse_signed(entry: object, *, subject: str) -> SignedDocument:
    """Parse a document with its signatures, as `SignedDocument.to_request` returns it.

    Raises:
        TrustDocumentError: it does not follow the schema.
    """
    try:
        parsed = _SignedEntry.model_validate(entry)
    except ValidationError as error:
        raise TrustDocumentError(subject, _fault(error)) from error
    body = dict(parsed.document)
    document = parse_document(body, subject=subject)
    signatures = tuple(KeySignature(key_id=each.key, value=_decoded(each.sig)) for each in parsed.signatures)
    return SignedDocument(document=document, body=body, signatures=signatures)


def first_document(amendment: Amendment, *, version: int = 1) -> SignedDocument:
    """Return an unsigned document that has only what the amendment adds.

    Raises:
        TrustDocumentError: EQ609, a role could never sign.
    """
    empty = {"keys": [], "threshold": 1}
    body = {
        "schema": wire.TRUST_DOCUMENT_SCHEMA,
        "version": version,
        "keys": {},
        "roles": {ROOT: empty, RELEASE: empty},
    }
    return _amended(TrustDocument.model_validate(body), amendment, version)


def next_document(before: TrustDocument, amendment: Amendment) -> SignedDocument:
    """Return the unsigned next version.

    Raises:
        TrustDocumentError: EQ609, a role could never sign again; EQ608, a revoked key gets a role, a key to
            revoke or to drop is unknown, or nothing changes.
    """
    after = _amended(before, amendment, before.version + 1)
    if after.document.model_copy(update={"version": before.version}) == before:
        subject = f"trust document {before.version}"
        raise TrustDocumentError(subject, "says this already, so there is no next version")
    return after


def needed(before: TrustDocument | None, signed: SignedDocument) -> dict[str, tuple[str, ...]]:
    """Return who must still sign: for `old root` and `new root`, the ids that can; empty when all is there.

    Args:
        before: the version before; None for the first one, which its own root signs.
    """
    missing = {}
    roots = {"new root": signed.document, **({"old root": before} if before else {})}
    for name, document in roots.items():
        role = document.roles.root
        signers = signed.valid_signers({key_id: document.keys[key_id] for key_id in role.keys})
        if len(signers) < role.threshold:
            missing[name] = tuple(key_id for key_id in role.keys if key_id not in signers)
    return missing


def _amended(before: TrustDocument, amendment: Amendment, version: int) -> SignedDocument:
    revoked = dict.fromkeys((*before.revoked, *amendment.revoke))
    keys = dict(before.keys)
    for key in (*amendment.add_root, *amendment.add_release):
        if key.id in revoked:
            problem = "was revoked, which is final, so it cannot have a role"
            raise TrustDocumentError(
                f"key {key.name} ({key.id})", problem, hint="make a new key: `edgeq keys new NAME`"
            )
        keys.setdefault(key.id, KeyEntry(public=key.base64, name=key.name))
    for key_id in (*amendment.revoke, *amendment.drop_root, *amendment.drop_release):
        if key_id not in keys:
            raise TrustDocumentError(f"key {key_id}", "is not in the trust document")
    root = _role(
        before.roles.root, amendment.add_root, amendment.drop_root, revoked, amendment.root_threshold
    )
    release = _role(
        before.roles.release,
        amendment.add_release,
        amendment.drop_release,
        revoked,
        amendment.release_threshold,
    )
    void = amendment.void or {}
    resets = dict(before.counters)
    for model, counter in (amendment.reset_counters or {}).items():
        withdrawn = dict.fromkeys((*(resets[model].void if model in resets else ()), *void.get(model, ())))
        resets[model] = CounterReset.model_construct(
            version=version, counter=counter, void=tuple(withdrawn)[-MAX_VOID:]
        )
    document = TrustDocument.model_construct(
        schema_name=wire.TRUST_DOCUMENT_SCHEMA,
        version=version,
        keys={
            key_id: entry
            for key_id, entry in keys.items()
            if key_id in revoked or key_id in root.keys or key_id in release.keys
        },
        roles=Roles.model_construct(root=root, release=release),
        revoked=tuple(revoked),
        counters=resets,
        changes=amendment.changes or before.changes,
        expires_s=None if amendment.never_expires else amendment.expires_s or before.expires_s,
    )
    body = document.to_body()
    return SignedDocument(document=parse_document(body, subject=f"trust document {version}"), body=body)


def _role(
    before: Role,
    add: Sequence[PublicKey],
    drop: Sequence[str],
    revoked: Mapping[str, None],
    threshold: int | None,
) -> Role:
    ids = dict.fromkeys((*before.keys, *(key.id for key in add)))
    kept = tuple(key_id for key_id in ids if key_id not in revoked and key_id not in drop)
    return Role.model_construct(keys=kept, threshold=before.threshold if threshold is None else threshold)


def _check_role(document: TrustDocument, name: str, subject: str) -> None:
    role = document.role(name)
    if len(set(role.keys)) < len(role.keys):
        raise TrustDocumentError(subject, f"the role {name} has a key twice")
    if not set(role.keys) <= set(document.keys) - set(document.revoked):
        raise TrustDocumentError(subject, f"the role {name} has a key that is unknown or revoked")
    if role.threshold > len(role.keys):
        raise TrustDocumentError(
            subject,
            f"the fleet would be locked out: the role {name} could never sign again",
            expected=f"at least {role.threshold} key{'s' * (role.threshold != 1)} with the role {name}",
            got=str(len(role.keys)),
            hint=f"add a key in the same change (--add-{name} KEY; for releases "
            f"`edgeq keys recover LEAKED --replace-by NEW`), or lower the threshold (--{name}-threshold)",
            code="EQ609",
        )


def _fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"`{where}`: {fault['msg']}"


def _decoded(text: str) -> bytes:
    """Return the signature's bytes; text that is not base64 gives a signature that matches nothing."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def _public(entry: KeyEntry) -> bytes | None:
    try:
        raw = base64.b64decode(entry.public.encode("ascii"), validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        return None
    return raw


def _matches(entry: KeyEntry, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(entry.public)).verify(signature, message)
    except InvalidSignature:
        return False
    return True
