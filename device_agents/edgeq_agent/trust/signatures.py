"""Check that enough trusted keys signed a document; a refusal says what was wrong with the signatures."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple, Sequence

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import BAD_REQUEST, BAD_SIGNATURE, REVOKED_KEY, UNKNOWN_KEY, UNSIGNED, AgentError
from edgeq_agent.trust import ed25519
from edgeq_agent.wire import Json

# Each verification takes up to a tenth of a second on the slowest boards.
MAX_SIGNATURES = 16


class Key(NamedTuple):
    """A public key that was added to the device; only an active one counts."""

    public: bytes
    role: str
    active: bool
    name: str


class Signature(NamedTuple):
    """One signature, with the id of the key that made it."""

    key_id: str
    value: bytes


class Hints(NamedTuple):
    """What to do about a refusal, by its reason."""

    altered: str
    revoked: str
    unknown: str
    missing: str


RELEASE_HINTS = Hints(
    altered="make the bundle again with `edgeq bundle MODEL -o FILE`; the device was not changed",
    revoked="sign it with a key that is still trusted: `edgeq bundle MODEL -o FILE --sign KEY`",
    unknown="if the key is yours: `edgeq keys trust KEY.pub --on DEVICE`",
    missing="make it with `edgeq bundle MODEL -o FILE`, which signs it; give `--sign KEY` once for each key",
)
CHANGE_HINTS = Hints(
    altered="make the change again; the device was not changed",
    revoked="sign it with a key that is still trusted: `--by KEY`",
    unknown="`edgeq keys list --on DEVICE` shows the keys that may sign; name one with `--by KEY`",
    missing="give `--by KEY` once for each key",
)


def parse(request: Fields) -> tuple[Signature, ...]:
    """Return the signatures of a request: its field `signatures`, a list of {key, sig}; none when missing.

    Raises:
        AgentError: EQ512.
    """
    expected = f"a list of at most {MAX_SIGNATURES} of {{key, sig}}"
    return tuple(request.list_of("signatures", _signature, expected, high=MAX_SIGNATURES))


def check(
    keys: dict[str, Key],
    threshold: int,
    payload_type: str,
    document: Json,
    signatures: Sequence[Signature],
    subject: str,
    hints: Hints = RELEASE_HINTS,
) -> list[str]:
    """Return the ids of the active keys whose signatures over the document are valid, at least `threshold`.

    Signatures of other keys are ignored: a release may be signed for several fleets.

    Raises:
        AgentError: fewer than `threshold` are valid: EQ534 a signature does not match the document or was
            made for another type; else EQ533 the key was revoked; else EQ532 the key is not known here; else
            EQ531 too few signatures. EQ512, the document has no canonical form.
    """
    message = _message(payload_type, document)
    valid: list[str] = []
    refused: dict[str, list[str]] = {BAD_SIGNATURE: [], REVOKED_KEY: [], UNKNOWN_KEY: []}
    for key_id, value in signatures:
        key = keys.get(key_id)
        if key is None:
            refused[UNKNOWN_KEY].append(key_id)
        elif not key.active:
            refused[REVOKED_KEY].append(key_id)
        elif not ed25519.verify(key.public, message, value):
            refused[BAD_SIGNATURE].append(key_id)
        elif key_id not in valid:
            valid.append(key_id)
    if len(valid) < threshold:
        raise _refusal(keys, threshold, refused, valid, subject, hints)
    return valid


def _signature(request: Fields, name: str) -> Signature:
    entry = request.object(name, "objects with key and sig")
    return Signature(entry.key_id("key"), _decode(entry.text("sig")))


def _decode(text: str) -> bytes:
    """Return the signature's bytes; text that is not base64 gives a signature that matches nothing."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def _message(payload_type: str, document: Json) -> bytes:
    try:
        return wire.signed_bytes(payload_type, document)
    except (ValueError, RecursionError) as error:  # a number or a text that JSON can read but not write
        raise AgentError(BAD_REQUEST, "manifest", f"has no canonical form: {type(error).__name__}") from error


def _refusal(
    keys: dict[str, Key],
    threshold: int,
    refused: dict[str, list[str]],
    valid: list[str],
    subject: str,
    hints: Hints,
) -> AgentError:
    trusted = sorted(key_id for key_id, key in keys.items() if key.active)
    count = f"{threshold} of " if threshold > 1 else ""
    expected = f"a signature of key {count}" + " or ".join(trusted)
    if refused[BAD_SIGNATURE]:
        return AgentError(
            BAD_SIGNATURE,
            subject,
            "a signature does not match: the content was altered or cut short, or signed as another type",
            expected="a signature over exactly this content",
            got="one of key " + refused[BAD_SIGNATURE][0],
            hint=hints.altered,
        )
    if refused[REVOKED_KEY]:
        return AgentError(
            REVOKED_KEY,
            subject,
            "signed with a key that was revoked on this device",
            expected=expected,
            got=" and ".join(refused[REVOKED_KEY]),
            hint=hints.revoked,
        )
    if refused[UNKNOWN_KEY]:
        return AgentError(
            UNKNOWN_KEY,
            subject,
            "signed with a key that this device does not trust",
            expected=expected,
            got=" and ".join(refused[UNKNOWN_KEY]),
            hint=hints.unknown,
        )
    return AgentError(
        UNSIGNED,
        subject,
        "not signed" if not valid else "not signed by enough keys",
        expected=expected,
        got=" and ".join(valid) or "none",
        hint=hints.missing,
    )
