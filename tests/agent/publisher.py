"""The publisher of the tests: its key, its signatures, and the change of trust that adds it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire

# The key that every prepared home trusts.
PUBLISHER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the tests' publisher").digest())


def signature_of(
    document: dict[str, Any], key: Ed25519PrivateKey = PUBLISHER, payload_type: str = wire.RELEASE_TYPE
) -> dict[str, str]:
    """Return an entry of `signatures`."""
    signature = key.sign(wire.signed_bytes(payload_type, document))
    return {"key": id_of(key), "sig": base64.b64encode(signature).decode()}


def id_of(key: Ed25519PrivateKey) -> str:
    """Return the id under which devices know a key."""
    return wire.key_id(key.public_key().public_bytes_raw())


def change_of(*add: Ed25519PrivateKey, **more: Any) -> dict[str, Any]:
    """Return a change of trust that adds keys."""
    entries = [
        {
            "public": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
            "role": "publish",
            "name": "tests",
        }
        for key in add
    ]
    return {"schema": wire.TRUST_CHANGE_SCHEMA, "add": entries, **more}
