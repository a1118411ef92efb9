"""Verify Ed25519 signatures (RFC 8032) with integers and SHA-512 alone, so that any Python 3.7 can do it."""

from __future__ import annotations

import hashlib

from edgeq_agent.trust.edwards import (
    ORDER,
    decode,
    encode,
    is_neutral,
    negative,
    sum_of_products,
    times_8,
)

KEY_BYTES = 32
SIGNATURE_BYTES = 64


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is the key's signature of `message`, by the strict reading of RFC 8032.

    Also refused are a signature that is not 64 bytes long, an S that is not below the group's order (a second
    encoding of the same signature), a key or an R that is not a canonical point, and a key of small order,
    under which one signature matches many messages.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    point = decode(key)
    scalar = int.from_bytes(signature[32:], "little")
    if point is None or scalar >= ORDER or is_neutral(times_8(point)):
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    # R = S*B - k*A, compared as bytes: an R in another encoding than the canonical one differs.
    return encode(sum_of_products(scalar, challenge, negative(point))) == signature[:32]


def key_problem(key: bytes) -> str | None:
    """Return why a public key must not be trusted; None for a point of the full prime order."""
    if len(key) != KEY_BYTES:
        return f"{len(key)} bytes instead of {KEY_BYTES}"
    point = decode(key)
    if point is None:
        return "not a point of the curve"
    if is_neutral(times_8(point)):
        return "a point of small order: one signature would match many messages"
    if not is_neutral(sum_of_products(0, ORDER, point)):
        return "a point outside the group of prime order"
    return None
