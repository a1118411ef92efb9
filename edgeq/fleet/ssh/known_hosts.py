"""Check the host keys of jump hosts against pinned keys or `known_hosts`; unknown keys are refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import ConfigError, HostKeyMismatch, HostKeyRevoked, HostKeyUnknown
from edgeq.fleet.ssh.hostkeys import HostKey

_log = logging.getLogger("edgeq.ssh")
_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKeys:
    """The entries of one host in known_hosts files.

    Attributes:
        revoked: keys that must not be accepted for it, even if another line lists them.
        by_authority: whether a certificate authority vouches for it, which paramiko cannot check.
    """

    keys: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()
    by_authority: bool = False


def known_keys(host: str, port: int, files: Sequence[Path]) -> KnownKeys:
    """Return the entries of a host in files; an invalid line is skipped, not the file."""
    name = host_name(host, port)
    entries = [(marker, key) for path in files for marker, names, key in _lines(path) if _covers(names, name)]
    return KnownKeys(
        keys=tuple(dict.fromkeys(key for marker, key in entries if marker is None)),
        revoked=tuple(key for marker, key in entries if marker == _REVOKED),
        by_authority=any(marker == _AUTHORITY for marker, _ in entries),
    )


def host_name(host: str, port: int) -> str:
    """Return the name of a host as `known_hosts` writes it."""
    return host if port == 22 else f"[{host}]:{port}"


def check_known(name: str, host: str, port: int, *, known: KnownKeys, shown: HostKey) -> None:
    """Accept a key that is known for a host only.

    Raises:
        HostKeyRevoked: it was revoked.
        HostKeyUnknown: no key is known for the host.
        HostKeyMismatch: another key is known for it.
    """
    where = host_name(host, port)
    if shown in known.revoked:
        raise HostKeyRevoked(
            name,
            f"jump host {where} has a host key that known_hosts revokes ({shown.fingerprint})",
            hint="find out why it was revoked; do not log in there",
        )
    if shown in known.keys:
        return
    if not known.keys and known.by_authority:
        raise HostKeyUnknown(
            name,
            f"known_hosts has only a certificate authority for jump host {where}, "
            f"and paramiko cannot check host certificates ({shown.fingerprint})",
            hint="set `transport = 'openssh'` in devices.toml, or pin the key with --jump-fingerprint",
        )
    if not known.keys:
        raise HostKeyUnknown(
            name,
            f"the host key of jump host {where} is not known ({shown.fingerprint})",
            hint=f"read it on {host} itself and pass it as --jump-fingerprint, "
            f"or log in there once with `ssh -p {port} {host}`",
        )
    raise HostKeyMismatch(
        name,
        f"jump host {where} has another host key than the one in known_hosts",
        expected=", ".join(f"{key.type} {key.fingerprint}" for key in known.keys),
        got=f"{shown.type} {shown.fingerprint}",
        hint=f"read it on {host} itself; if it matches: `ssh-keygen -R '{where}'`, then log in once",
    )


def check_jump(device: str, host: str, port: int, *, pinned: HostKey | str, shown: HostKey) -> None:
    """Accept the pinned key of a jump host only, given as a key or as its fingerprint.

    Raises:
        HostKeyMismatch: it has another one; names the host.
    """
    if pinned in (shown, shown.fingerprint):
        return
    where = host_name(host, port)
    # With a fingerprint given, the device may not be enrolled yet: the same command has to be repeated.
    again = "pass" if isinstance(pinned, str) else f"`edgeq devices rotate-key {device}"
    end = "" if isinstance(pinned, str) else "`"
    raise HostKeyMismatch(
        f"{device} (via {host})",
        f"jump host {where} has another host key than the one "
        + ("given" if isinstance(pinned, str) else "pinned in devices.toml"),
        expected=pinned if isinstance(pinned, str) else f"{pinned.type} {pinned.fingerprint}",
        got=f"{shown.type} {shown.fingerprint}",
        hint=f"read it on {host} itself; if it matches: {again} --jump-fingerprint {shown.fingerprint}{end}",
    )


def _lines(path: Path) -> Iterator[tuple[str | None, str, HostKey]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        # It may revoke keys, so that it cannot be left out.
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else None
        try:
            if marker not in (None, _REVOKED, _AUTHORITY) or len(words) < 3:
                raise ConfigError("known_hosts", "is not a host key")
            yield marker, words[0], HostKey.parse(" ".join(words[1:3]))
        except ConfigError:
            _log.info("%s, line %d is not a host key", path, number)


def _covers(names: str, host: str) -> bool:
    """Return whether the names of a line match a host: hashed, or patterns; `!` excludes."""
    if names.startswith("|"):
        return _hashed(names, host.lower())
    covered = False
    for pattern in names.lower().split(","):
        if _matches(pattern.removeprefix("!"), host.lower()):
            if pattern.startswith("!"):
                return False
            covered = True
    return covered


def _matches(pattern: str, host: str) -> bool:
    # Only `*` and `?` are wildcards; brackets enclose a host with a port.
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(text, host) is not None


def _hashed(names: str, host: str) -> bool:
    try:
        _, kind, salt, digest = names.split("|")
        key, expected = base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error):
        return False
    return kind == "1" and hmac.compare_digest(hmac.new(key, host.encode(), hashlib.sha1).digest(), expected)
