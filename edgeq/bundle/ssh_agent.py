"""Signing keys in the ssh agent: the private part is there, in a file that was unlocked or in hardware."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Callable
from typing import cast

import paramiko
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgeq.bundle.keys import PublicKey, SigningKey, short_name
from edgeq.errors import SigningKeyError

_TYPE = "ssh-ed25519"
_KEY_BYTES = 32


def agent_keys() -> tuple[SigningKey, ...]:
    """Return the Ed25519 keys of the agent that SSH_AUTH_SOCK names; none without an agent."""
    if not _answers():
        return ()
    agent = paramiko.Agent()
    try:
        keys = []
        for key in agent.get_keys():
            raw = _raw(key.asbytes())
            if raw is not None:
                comment = str(getattr(key, "comment", "") or "key")
                keys.append(
                    SigningKey(public=PublicKey(raw=raw, name=short_name(comment)), _sign=_signer(raw))
                )
        return tuple(keys)
    except paramiko.SSHException as error:
        raise SigningKeyError("ssh agent", f"does not answer: {error}", hint=_HINT) from error
    finally:
        agent.close()


def key_of(public: PublicKey, *, subject: str) -> SigningKey:
    """Return the agent's key with this public part, under the name of the file.

    Raises:
        SigningKeyError: the agent does not have it.
    """
    if not any(each.public.raw == public.raw for each in agent_keys()):
        raise SigningKeyError(
            subject,
            "is a public key, and its private key is neither beside it nor in the ssh agent",
            hint=_HINT,
        )
    return SigningKey(public=public, _sign=_signer(public.raw))


def key_named(name: str) -> SigningKey:
    """Return the agent's only key with this comment, key id, or fingerprint (`SHA256:...`).

    Raises:
        SigningKeyError: the agent has no such Ed25519 key, or several.
    """
    keys = agent_keys()
    matching = [key for key in keys if name in (key.public.name, key.public.id, _fingerprint(key.public.raw))]
    if len(matching) != 1:
        known = ", ".join(f"{key.public.name} ({key.public.id})" for key in keys)
        got = f"{len(matching)} of these: {known}" if known else "no Ed25519 key"
        raise SigningKeyError(f"agent:{name}", expected="one key of the ssh agent", got=got, hint=_HINT)
    return matching[0]


def _answers() -> bool:
    """Return whether there is an agent; paramiko leaves the socket of a failed attempt open."""
    name = os.environ.get("SSH_AUTH_SOCK")
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(name or "")
        except OSError:
            return False
    return True


def _signer(raw: bytes) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                if _raw(key.asbytes()) == raw:
                    reply = paramiko.Message(cast("bytes", key.sign_ssh_data(message)))
                    kind, signature = reply.get_text(), reply.get_binary()
                    break
            else:
                raise SigningKeyError("ssh agent", "no longer has the key", hint=_HINT)
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        except (paramiko.SSHException, InvalidSignature) as error:
            problem = "refuses to sign, or its signature does not match; it may be locked or ask for consent"
            raise SigningKeyError("ssh agent", problem, hint=_HINT) from error
        finally:
            agent.close()
        if kind != _TYPE:
            raise SigningKeyError("ssh agent", expected=f"a signature of type {_TYPE}", got=kind)
        return signature

    return sign


_HINT = (
    "`ssh-add -l` shows the agent's keys, `ssh-add FILE` adds one; security keys (sk-) cannot sign releases"
)


def _raw(blob: bytes) -> bytes | None:
    """Return the 32 bytes of an Ed25519 key in OpenSSH's format; None for another type of key."""
    message = paramiko.Message(blob)
    if message.get_binary() != _TYPE.encode():
        return None
    raw = message.get_binary()
    return raw if len(raw) == _KEY_BYTES else None


def _fingerprint(raw: bytes) -> str:
    message = paramiko.Message()
    message.add_string(_TYPE)
    message.add_string(raw)
    digest = hashlib.sha256(message.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")
