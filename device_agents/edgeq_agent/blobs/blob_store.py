"""Content-addressed blobs: an upload is hashed, synced and renamed before it is anything else."""

from __future__ import annotations

import hashlib
import os
from typing import Iterator

from edgeq_agent.calls.stdin import Silence, Source
from edgeq_agent.errors import DIGEST_MISMATCH, SHORT_PAYLOAD, AgentError, no_inodes, no_space
from edgeq_agent.storage import disk, files, home

# What stays free after an upload, so that a state or a journal line can still be written.
RESERVE_BYTES = 1024 * 1024
RESERVE_INODES = 16


def has(place: home.Home, sha256: str, size_bytes: int) -> bool:
    """Tell whether a blob of this size is there; its content is hashed again before it is activated."""
    try:
        return os.stat(place.blob(sha256)).st_size == size_bytes
    except FileNotFoundError:
        return False


def intact(place: home.Home, sha256: str) -> bool:
    """Tell whether the blob is there with the content that its name says."""
    try:
        return files.sha256_of(place.blob(sha256)) == sha256
    except FileNotFoundError:
        return False


def check_space(place: home.Home, subject: str, size_bytes: int, count: int = 1) -> None:
    """Refuse what would not fit, by bytes or by the number of files.

    Raises:
        AgentError: EQ501.
    """
    free = home.free_bytes(place.root)
    if free < size_bytes + RESERVE_BYTES:
        raise no_space(subject, size_bytes + RESERVE_BYTES, free)
    inodes = home.free_inodes(place.root)
    if inodes is not None and inodes < count + RESERVE_INODES:
        raise no_inodes(subject, count + RESERVE_INODES, inodes)


def receive(stream: Source, size_bytes: int, path: str, sha256: str) -> None:
    """Write exactly `size_bytes` of the stream to `path`, synced.

    Raises:
        AgentError: EQ505 the digest differs, EQ506 the stream ended early.
    """
    digest = hashlib.sha256()
    with disk.create(path) as target:
        for chunk in payload(stream, size_bytes, sha256):
            digest.update(chunk)
            target.write(chunk)
        target.sync()
    if digest.hexdigest() != sha256:
        raise AgentError(
            DIGEST_MISMATCH,
            "blob " + sha256[:12],
            "the bytes that arrived are not those that were announced",
            expected=sha256,
            got=digest.hexdigest(),
            hint="send it again",
        )


def payload(stream: Source, size_bytes: int, subject: str) -> Iterator[bytes]:
    """Yield exactly `size_bytes` of the stream in pieces.

    Raises:
        AgentError: EQ506, the stream ended early or went silent.
    """
    left = size_bytes
    while left:
        try:
            chunk = stream.read(min(files.CHUNK_BYTES, left))
            problem = "the connection ended early"
        except Silence as silence:
            chunk, problem = b"", f"the connection was {silence}"
        if not chunk:
            raise AgentError(
                SHORT_PAYLOAD,
                "payload " + subject[:12],
                problem,
                expected=f"{size_bytes} bytes",
                got=f"{size_bytes - left} bytes",
                hint="send it again",
            )
        left -= len(chunk)
        yield chunk
