"""Verb `put`: store one blob, sent whole in one call."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent.blobs import blob_store
from edgeq_agent.calls.call import Call
from edgeq_agent.calls.fields import Fields
from edgeq_agent.storage import disk, lock, scratch
from edgeq_agent.wire import Json


class PutRequest(NamedTuple):
    """A blob that follows the request as its payload."""

    sha256: str
    size_bytes: int


def put(call: Call) -> Json:
    """Verb `put`: store the payload under its SHA-256.

    Raises:
        AgentError: EQ501 no space, EQ505 other bytes than announced, EQ506 fewer bytes than announced.
    """
    request = _parse(call.fields)
    sha256, size_bytes = request
    scratch.sweep(call.home)
    if blob_store.has(call.home, sha256, size_bytes) and blob_store.is_intact(call.home, sha256):
        for _ in blob_store.payload(call.payload, size_bytes, sha256):
            pass  # the host sends it in any case; reading it all keeps its write from failing
        return {"sha256": sha256, "stored": False}
    _store(call, request)
    return {"sha256": sha256, "stored": True}


def _parse(fields: Fields) -> PutRequest:
    request = PutRequest(fields.sha256("sha256"), fields.size_bytes("size_bytes"))
    if fields.size_bytes("payload_bytes") != request.size_bytes:
        raise fields.refuse("payload_bytes", f"size_bytes ({request.size_bytes})")
    return request


def _store(call: Call, request: PutRequest) -> None:
    # The payload is received without the lock: a slow upload must not block a status query or a rollback.
    temporary = scratch.path(call.home, "put-" + request.sha256)
    blob_store.check_space(call.home, "blob " + request.sha256[:12], request.size_bytes)
    try:
        blob_store.receive(call.payload, request.size_bytes, temporary, request.sha256)
        with lock.hold(call.home):
            blob_store.place(call.home, temporary, request.sha256)
            disk.sync_folder(call.home.blobs)
    finally:
        scratch.remove(temporary)
