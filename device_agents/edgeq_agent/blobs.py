"""Content-addressed blobs: an upload is hashed, synced and renamed before it is anything else."""

from __future__ import annotations

import hashlib
import os
from typing import Iterator

from edgeq_agent import disk, files, home, lock, request, scratch
from edgeq_agent.call import Call
from edgeq_agent.errors import DIGEST_MISMATCH, SHORT_PAYLOAD, AgentError, no_inodes, no_space
from edgeq_agent.source import Silence, Source
from edgeq_agent.wire import Json

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


def put(call: Call) -> Json:
    """Verb `put`: store the payload under its SHA-256.

    Raises:
        AgentError: EQ501 no space, EQ505 other bytes than announced, EQ506 fewer bytes than announced.
    """
    sha256 = request.sha256(call.request, "sha256")
    size_bytes = request.integer(call.request, "size_bytes", 0, 1 << 48)
    payload_bytes = request.integer(call.request, "payload_bytes", 0, 1 << 48)
    if size_bytes != payload_bytes:
        raise request.bad("payload_bytes", f"size_bytes ({size_bytes})", payload_bytes)
    scratch.sweep(call.home)
    if has(call.home, sha256, size_bytes) and intact(call.home, sha256):
        for _ in payload(call.payload, payload_bytes, sha256):
            pass  # the host sends it in any case: read to the end, so that its write does not fail
        return {"sha256": sha256, "stored": False}
    _store(call, sha256, size_bytes)
    return {"sha256": sha256, "stored": True}


def _store(call: Call, sha256: str, size_bytes: int) -> None:
    # Received without the lock: a slow upload must not keep the device from being asked or rolled back.
    temporary = scratch.path(call.home, "put-" + sha256)
    check_space(call.home, "blob " + sha256[:12], size_bytes)
    try:
        receive(call.payload, size_bytes, temporary, sha256)
        with lock.hold(call.home):
            disk.replace(temporary, call.home.blob(sha256))
            disk.sync_folder(call.home.blobs)
    finally:
        scratch.remove(temporary)


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
