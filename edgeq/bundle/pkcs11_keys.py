"""Signing keys in a PKCS #11 token, such as a smart card or an HSM: the private key never leaves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from edgeq.bundle.keys import Passphrase, PublicKey, SigningKey, short_name
from edgeq.errors import MissingExtra, SigningKeyError

PREFIX = "pkcs11:"
# Names the token's library where the URI does not.
MODULE_VARIABLE = "EDGEQ_PKCS11_MODULE"
_KEY_BYTES = 32
_HINT = (
    "name it as `pkcs11:token=TOKEN;object=LABEL?module-path=/path/to/library.so`, or set the library in "
    f"{MODULE_VARIABLE}; `pkcs11-tool --list-objects` shows a token's keys"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a key is, as its URI (RFC 7512) says."""

    uri: str
    module: str
    token: str
    label: str


def token_key(uri: str, passphrase: Passphrase) -> SigningKey:
    """Return the Ed25519 key that a URI names; it asks for the PIN when it signs.

    Args:
        passphrase: asked for the token's PIN.

    Raises:
        MissingExtra: the extra `pkcs11` is not installed.
        SigningKeyError: the token or the key is missing, or the key is of another type.
    """
    place = _place(uri)
    return SigningKey(public=token_public(uri), _sign=_signer(place, passphrase))


def token_public(uri: str) -> PublicKey:
    """Return the public part of the key that a URI names; no PIN is needed. Raises as `token_key`."""
    place = _place(uri)
    with _session(place, None) as session:
        raw = _raw(_key(place, session, "PUBLIC_KEY"))
    return PublicKey(raw=raw, name=short_name(place.label))


def _place(uri: str) -> _Place:
    path, _, query = uri.removeprefix(PREFIX).partition("?")
    fields = dict(part.partition("=")[::2] for part in path.split(";"))
    module = parse_qs(query).get("module-path", [os.environ.get(MODULE_VARIABLE, "")])[0]
    token, label = unquote(fields.get("token", "")), unquote(fields.get("object", ""))
    if not (module and token and label):
        raise SigningKeyError(
            uri, expected="a token, an object and a library", got="not all of them", hint=_HINT
        )
    return _Place(uri=uri, module=module, token=token, label=label)


@contextmanager
def _session(place: _Place, pin: str | None) -> Iterator[Any]:
    pkcs11 = _library()
    try:
        token = pkcs11.lib(place.module).get_token(token_label=place.token)
        with token.open(user_pin=pin) if pin is not None else token.open() as session:
            yield session
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid) as error:
        hint = "try again; a token locks itself after a few wrong PINs"
        raise SigningKeyError(place.uri, "the PIN is wrong", hint=hint) from error
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        detail = str(error) or type(error).__name__
        raise SigningKeyError(place.uri, f"the token cannot be used: {detail}", hint=_HINT) from error


def _library() -> Any:
    try:
        import pkcs11
    except ImportError as error:
        raise MissingExtra(
            "keys in a PKCS #11 token", "need python-pkcs11", hint="pip install 'edgeq[pkcs11]'"
        ) from error
    return pkcs11


def _key(place: _Place, session: Any, kind: str) -> Any:
    pkcs11 = _library()
    keys = list(
        session.get_objects(
            {pkcs11.Attribute.CLASS: pkcs11.ObjectClass[kind], pkcs11.Attribute.LABEL: place.label}
        )
    )
    if len(keys) != 1 or keys[0].key_type is not pkcs11.KeyType.EC_EDWARDS:
        got = f"{len(keys)} keys" if len(keys) != 1 else keys[0].key_type.name
        raise SigningKeyError(place.uri, expected="one Ed25519 key with this label", got=got, hint=_HINT)
    return keys[0]


def _raw(key: Any) -> bytes:
    # The point is a DER octet string of 32 bytes in most tokens, the bare bytes in some.
    point = bytes(key[_library().Attribute.EC_POINT])
    if len(point) not in (_KEY_BYTES, _KEY_BYTES + 2):
        raise SigningKeyError(str(key.label), expected="an Ed25519 key", got=f"a point of {len(point)} bytes")
    return point[-_KEY_BYTES:]


def _signer(place: _Place, passphrase: Passphrase) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        pin = passphrase(Path(place.uri))
        if pin is None:
            hint = "run it on a terminal, or put the PIN into the file that EDGEQ_KEY_PASSPHRASE_FILE names"
            raise SigningKeyError(place.uri, "needs its PIN", hint=hint)
        with _session(place, pin.decode(errors="replace")) as session:
            key = _key(place, session, "PRIVATE_KEY")
            return bytes(key.sign(message, mechanism=_library().Mechanism.EDDSA))

    return sign
