"""The content-addressed blob store: a blob is hashed, synced and renamed into place."""

from __future__ import annotations

import hashlib
import os
from typing import Iterator

from edgeq_agent.calls.stdin import IdleTimeout, Stdin
from edgeq_agent.errors import DIGEST_MISMATCH, SHORT_PAYLOAD, AgentError, no_inodes, no_space
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home, free_bytes, free_inodes

# Kept free after an upload, so that a state or a journal line can still be written.
RESERVE_BYTES = 1024 * 1024
RESERVE_INODES = 16


def has(home: Home, sha256: str, size_bytes: int) -> bool:
    """Return whether a blob of this size is stored; its content is hashed again before an activation."""
    path = home.blob(sha256)
    return os.path.isfile(path) and os.path.getsize(path) == size_bytes


def is_intact(home: Home, sha256: str) -> bool:
    """Return whether the blob is stored and its content has its SHA-256."""
    path = home.blob(sha256)
    # What this user cannot read serves no one here; an upload replaces it.
    return os.path.isfile(path) and os.access(path, os.R_OK) and files.sha256_of(path) == sha256


def place(home: Home, temporary: str, sha256: str) -> None:
    """Rename a complete file into the store (lock held); replaces whatever is in its place."""
    path = home.blob(sha256)
    if os.path.isdir(path) and not os.path.islink(path):
        scratch.remove(path)
    disk.replace(temporary, path)


def check_space(home: Home, subject: str, size_bytes: int, count: int = 1) -> None:
    """Refuse files that do not fit, by their size or by their number.

    Raises:
        AgentError: EQ501.
    """
    available_bytes = free_bytes(home.root)
    if available_bytes < size_bytes + RESERVE_BYTES:
        raise no_space(subject, size_bytes + RESERVE_BYTES, available_bytes)
    inodes = free_inodes(home.root)
    if inodes is not None and inodes < count + RESERVE_INODES:
        raise no_inodes(subject, count + RESERVE_INODES, inodes)


def receive(stdin: Stdin, size_bytes: int, path: str, sha256: str) -> None:
    """Write exactly `size_bytes` of standard input to `path` and sync the file.

    Raises:
        AgentError: EQ505 the SHA-256 differs, EQ506 the stream ended early.
    """
    digest = hashlib.sha256()
    with disk.create(path) as target:
        for chunk in payload(stdin, size_bytes, sha256):
            digest.update(chunk)
            target.write(chunk)
        target.sync()
    if digest.hexdigest() != sha256:
        raise digest_mismatch(sha256, digest.hexdigest())


def payload(stdin: Stdin, size_bytes: int, subject: str) -> Iterator[bytes]:
    """Yield exactly `size_bytes` of standard input, in pieces.

    Raises:
        AgentError: EQ506, the stream ended early, or no byte arrived within the idle timeout.
    """
    left = size_bytes
    while left:
        try:
            chunk = stdin.read(min(files.CHUNK_BYTES, left))
            problem = "the connection ended early"
        except IdleTimeout as timeout:
            chunk, problem = b"", f"the connection was {timeout}"
        if not chunk:
            raise AgentError(
                SHORT_PAYLOAD,
                "payload " + subject[:12],
                problem,
                expected=f"{size_bytes} bytes",
                got=f"{size_bytes - left} bytes",
                hint="run the same command again",
            )
        left -= len(chunk)
        yield chunk


def digest_mismatch(sha256: str, actual: str) -> AgentError:
    """Return the error for a blob with another content than announced (EQ505)."""
    return AgentError(
        DIGEST_MISMATCH,
        "blob " + sha256[:12],
        "the received bytes are not those that were announced",
        expected=sha256,
        got=actual,
        hint="check whether the file changed during the upload, then run the same command again",
    )
