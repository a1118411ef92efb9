"""The keys of an ssh agent, and the public key that a file stands for."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.agent import AgentKey, AgentSSH

_TIMEOUT_S = 5.0
_CONTAINER = b"openssh-key-v1\0"
_BEGIN, _END = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKeys:
    """The keys that an agent holds."""

    keys: tuple[AgentKey, ...]

    def of(self, blob: bytes | None) -> AgentKey | None:
        """Return the key with this public key, or None."""
        return next(
            (key for key in self.keys if blob is not None and blob in (key.blob, key.asbytes())), None
        )


@contextlib.contextmanager
def agent_keys(socket_path: str | None) -> Iterator[AgentKeys]:
    """Connect to an agent for the duration of a `with` block; without one there are no keys.

    Args:
        socket_path: None takes that of the environment; `none` uses no agent.
    """
    path = os.environ.get("SSH_AUTH_SOCK") if socket_path is None else socket_path
    if not path or path == "none":
        yield AgentKeys(keys=())
        return
    agent = _Agent()
    try:
        agent.open(path)
        yield AgentKeys(keys=tuple(agent.get_keys()))
    finally:
        agent.close()


class _Agent(AgentSSH):
    """paramiko's agent at any socket."""

    def open(self, path: str) -> None:
        """Connect; an agent that is gone holds no keys."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined] # not in the stubs
        except (OSError, paramiko.SSHException, struct.error):
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        self._close()  # type: ignore[attr-defined] # not in the stubs


def public_blob(path: Path) -> bytes | None:
    """Return the public key in a file, in `FILE.pub`, or in the container of a private key; None."""
    for name in (path, path.with_name(f"{path.name}.pub")):
        try:
            text = name.read_bytes()[:_MOST_BYTES].decode("ascii", "replace")
        except OSError:
            continue
        blob = _of_container(text) if _BEGIN in text else _of_line(text)
        if blob is not None:
            return blob
    return None


def _of_line(text: str) -> bytes | None:
    words = text.split(maxsplit=2)
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except ValueError:  # not base64, or not ASCII
        return None
    return blob if blob[4 : 4 + len(words[0])] == words[0].encode() and blob else None


def _of_container(text: str) -> bytes | None:
    # The public key is not encrypted: magic, cipher, kdf, kdf options, the number of keys, the public key.
    try:
        data = base64.b64decode("".join(text.partition(_BEGIN)[2].partition(_END)[0].split()))
        if not data.startswith(_CONTAINER):
            return None
        at = len(_CONTAINER)
        for _ in range(3):
            at += 4 + struct.unpack_from(">I", data, at)[0]
        at += 4
        (size,) = struct.unpack_from(">I", data, at)
    except (ValueError, struct.error):  # binascii.Error is a ValueError
        return None
    blob = data[at + 4 : at + 4 + size]
    return blob if len(blob) == size else None
