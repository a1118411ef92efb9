"""Host keys: parse, fingerprint, and compare with the pinned one."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from edgeq.errors import ConfigError, HostKeyMismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A server's public key as in `known_hosts`.

    Attributes:
        type: the algorithm, such as `ssh-ed25519`.
        base64: the public key's blob.
    """

    type: str
    base64: str

    @classmethod
    def parse(cls, text: str) -> HostKey:
        """Parse a key written as `TYPE BASE64`.

        Raises:
            ConfigError: it is not a key, or the blob has another type.
        """
        parts = text.split()
        try:
            blob = base64.b64decode(parts[1], validate=True) if len(parts) >= 2 else b""
        except ValueError:  # also for text outside of ASCII
            blob = b""
        if len(parts) < 2 or blob[4 : 4 + len(parts[0])] != parts[0].encode():
            raise ConfigError("host_key", expected="a key such as `ssh-ed25519 AAAA...`", got=repr(text[:40]))
        return cls(type=parts[0], base64=parts[1])

    @property
    def fingerprint(self) -> str:
        """The fingerprint as OpenSSH prints it: `SHA256:...`."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.type} {self.base64}"


def parse_keys(text: str) -> tuple[HostKey, ...]:
    """Parse keys written as `TYPE BASE64, TYPE BASE64`: one per jump host, in order.

    Raises:
        ConfigError: one of them is not a key.
    """
    return tuple(HostKey.parse(one) for one in text.split(","))


def check_pinned(name: str, *, pinned: HostKey, shown: HostKey) -> None:
    """Accept the pinned key only.

    Raises:
        HostKeyMismatch: the device has another one; both fingerprints are in the message.
    """
    if shown != pinned:
        raise HostKeyMismatch(
            name,
            "the host key changed: another machine answers, or the device was reinstalled",
            expected=f"{pinned.type} {pinned.fingerprint}",
            got=f"{shown.type} {shown.fingerprint}",
            hint="read the fingerprint on the device itself; if it matches: "
            f"`edgeq devices rotate-key {name} --fingerprint {shown.fingerprint}`",
        )
