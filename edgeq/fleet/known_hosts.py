"""Host keys of machines on the way, as `known_hosts` files have them: what is not there is refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from edgeq.errors import HostKeyMismatch, HostKeyUnknown
from edgeq.fleet.hostkeys import HostKey

_log = logging.getLogger("edgeq.ssh")


def known_keys(host: str, port: int, files: Sequence[Path]) -> tuple[HostKey, ...]:
    """Return the keys that files have for a host; a line that cannot be read is passed over, not the file."""
    name = host if port == 22 else f"[{host}]:{port}"
    keys = paramiko.HostKeys()
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if not line.strip() or line.startswith(
                ("#", "@")
            ):  # @revoked and @cert-authority say "not this key"
                continue
            try:
                entry = HostKeyEntry.from_line(line, number)
            except (InvalidHostKey, ValueError, paramiko.SSHException):
                _log.info("%s, line %d is no host key", path, number)
                continue
            if entry is not None and entry.key is not None:
                for one in entry.hostnames or ():
                    keys.add(one, entry.key.get_name(), entry.key)
    found = keys.lookup(name)
    if found is None:
        return ()
    return tuple(HostKey(type=key.get_name(), base64=key.get_base64()) for key in found.values())


def check_known(name: str, host: str, port: int, *, known: Sequence[HostKey], shown: HostKey) -> None:
    """Let a key pass that is known for a host, and no other.

    Raises:
        HostKeyUnknown: none is known.
        HostKeyMismatch: another one is.
    """
    if shown in known:
        return
    where = host if port == 22 else f"[{host}]:{port}"
    if not known:
        raise HostKeyUnknown(
            name,
            f"the host key of {where} on the way is not known ({shown.fingerprint})",
            hint=f"log in there once with `ssh -p {port} {host}`, and compare the fingerprint when it asks",
        )
    raise HostKeyMismatch(
        name,
        f"{where} on the way shows another host key than known_hosts has",
        expected=", ".join(f"{key.type} {key.fingerprint}" for key in known),
        got=f"{shown.type} {shown.fingerprint}",
        hint=f"read it on {host} itself; if it is the new one: `ssh-keygen -R '{where}'`, then log in once",
    )
