"""The signatures of a bundle over its manifest; trust in their keys is not decided here."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.bundle.keys import PublicKey, SigningKey
from edgeq.errors import SignatureInvalid
from edgeq_agent import wire

SCHEMA = "edgeq.signatures/1"
_MOST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature over a document, with its key."""

    key: PublicKey
    signature: bytes

    def to_request(self) -> dict[str, str]:
        """Return it in the agent's format."""
        return {"key": self.key.id, "sig": base64.b64encode(self.signature).decode("ascii")}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    public: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")]
    sig: str


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_name: Annotated[Literal["edgeq.signatures/1"], Field(alias="schema")]
    payload_type: Literal["application/vnd.edgeq.release.v1+json"]
    signatures: Annotated[tuple[_Entry, ...], Field(min_length=1, max_length=_MOST)]


def sign(manifest: Mapping[str, Any], keys: Sequence[SigningKey]) -> tuple[Signature, ...]:
    """Return the keys' signatures over a release's manifest, each key once, in the order of their ids."""
    message = wire.signed_bytes(wire.RELEASE_TYPE, dict(manifest))
    chosen = {key.public.id: key for key in keys}
    return tuple(Signature(key=key.public, signature=key.sign(message)) for _, key in sorted(chosen.items()))


def to_document(signatures: Sequence[Signature]) -> bytes:
    """Return the signatures as the file that a bundle carries."""
    entries = [
        {**entry.to_request(), "public": entry.key.base64, "name": entry.key.name} for entry in signatures
    ]
    return wire.canonical({"schema": SCHEMA, "payload_type": wire.RELEASE_TYPE, "signatures": entries})


def from_document(data: bytes, manifest: Mapping[str, Any], *, subject: str) -> tuple[Signature, ...]:
    """Parse the signatures of a bundle, and verify each against the manifest.

    Trust in their keys is not checked here: the device and the caller decide that.

    Raises:
        SignatureInvalid: the document is invalid, or a signature does not match the manifest.
    """
    try:
        document = _Document.model_validate(json.loads(data))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
        raise SignatureInvalid(subject, f"its signatures cannot be read: {detail}") from error
    message = wire.signed_bytes(wire.RELEASE_TYPE, dict(manifest))
    return tuple(_checked(entry, message, subject) for entry in document.signatures)


def _checked(entry: _Entry, message: bytes, subject: str) -> Signature:
    try:
        raw = base64.b64decode(entry.public, validate=True)
        signature = base64.b64decode(entry.sig, validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
    except (binascii.Error, ValueError, InvalidSignature) as error:
        problem = f"the signature of key {entry.key} does not match the manifest"
        raise SignatureInvalid(subject, problem) from error
    key = PublicKey(raw=raw, name=entry.name)
    if key.id != entry.key:
        raise SignatureInvalid(subject, "a key has a wrong id", expected=key.id, got=entry.key)
    return Signature(key=key, signature=signature)
