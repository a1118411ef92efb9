"""Decides whether enough trusted keys signed a document; each refusal says what kind of signature it met."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls import request
from edgeq_agent.errors import BAD_REQUEST, BAD_SIGNATURE, REVOKED_KEY, UNKNOWN_KEY, UNSIGNED, AgentError
from edgeq_agent.trust import ed25519
from edgeq_agent.wire import Json

# Each costs a verification: up to a tenth of a second on the slowest boards.
MOST_SIGNATURES = 16


class Key(NamedTuple):
    """A public key that this device was told of."""

    public: bytes
    role: str
    active: bool
    name: str


def check(
    keys: dict[str, Key], threshold: int, payload_type: str, document: Json, signatures: Any, subject: str
) -> list[str]:
    """Return the ids of the active keys whose signatures over the document hold, at least `threshold`.

    Signatures of other keys do no harm: a release may be signed for several fleets.

    Raises:
        AgentError: EQ512 not of this form; else too few hold, and by what was wrong: EQ534 a signature does
            not fit the document or is for another type, EQ533 the key was revoked, EQ532 the key is not
            known here, EQ531 too few signatures.
    """
    message = _message(payload_type, document)
    valid: list[str] = []
    refused: dict[str, list[str]] = {BAD_SIGNATURE: [], REVOKED_KEY: [], UNKNOWN_KEY: []}
    for key_id, signature in _listed(signatures):
        key = keys.get(key_id)
        if key is None:
            refused[UNKNOWN_KEY].append(key_id)
        elif not key.active:
            refused[REVOKED_KEY].append(key_id)
        elif not ed25519.verify(key.public, message, signature):
            refused[BAD_SIGNATURE].append(key_id)
        elif key_id not in valid:
            valid.append(key_id)
    if len(valid) < threshold:
        raise _refusal(keys, threshold, refused, valid, subject)
    return valid


def _message(payload_type: str, document: Json) -> bytes:
    try:
        return wire.signed_bytes(payload_type, document)
    except (ValueError, RecursionError) as error:  # a number or a text that JSON reads and cannot write
        raise AgentError(BAD_REQUEST, "manifest", f"has no canonical form: {type(error).__name__}") from error


def _listed(signatures: Any) -> list[tuple[str, bytes]]:
    if signatures is None:
        return []
    if not isinstance(signatures, list) or len(signatures) > MOST_SIGNATURES:
        raise request.bad("signatures", f"a list of at most {MOST_SIGNATURES} of {{key, sig}}", signatures)
    found = []
    for entry in signatures:
        if not isinstance(entry, dict):
            raise request.bad("signatures", "objects with key and sig", entry)
        found.append((request.key_id(entry, "key"), _decoded(request.text(entry, "sig"))))
    return found


def _decoded(text: str) -> bytes:
    """Return the signature's bytes; what is no base64 is a signature that fits nothing."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def _refusal(
    keys: dict[str, Key], threshold: int, refused: dict[str, list[str]], valid: list[str], subject: str
) -> AgentError:
    trusted = sorted(key_id for key_id, key in keys.items() if key.active)
    wanted = "{}{}".format(f"{threshold} of " if threshold > 1 else "", " or ".join(trusted))
    if refused[BAD_SIGNATURE]:
        return AgentError(
            BAD_SIGNATURE,
            subject,
            "a signature does not fit: altered, cut short, or made for something else",
            expected="a signature over exactly this",
            got="one of key " + refused[BAD_SIGNATURE][0],
            hint="make the bundle again with `edgeq bundle`; nothing was changed here",
        )
    if refused[REVOKED_KEY]:
        return AgentError(
            REVOKED_KEY,
            subject,
            "signed with a key that was revoked here",
            expected="a signature of key " + wanted,
            got=" and ".join(refused[REVOKED_KEY]),
            hint="sign it with a key that is still trusted: `edgeq bundle --sign KEY`",
        )
    if refused[UNKNOWN_KEY]:
        return AgentError(
            UNKNOWN_KEY,
            subject,
            "signed with a key that this device does not trust",
            expected="a signature of key " + wanted,
            got=" and ".join(refused[UNKNOWN_KEY]),
            hint="if that key is yours: `edgeq keys trust KEY.pub --on DEVICE`",
        )
    return AgentError(
        UNSIGNED,
        subject,
        "not signed" if not valid else "not signed by enough keys",
        expected="a signature of key " + wanted,
        got=" and ".join(valid) or "none",
        hint="make it with `edgeq bundle`, which signs it; `--sign KEY` once for each key",
    )
