"""Verb `put`: one blob in one call, whole."""

from __future__ import annotations

from edgeq_agent.blobs import blob_store
from edgeq_agent.calls.call import Call
from edgeq_agent.storage import disk, lock, scratch
from edgeq_agent.wire import Json


def put(call: Call) -> Json:
    """Verb `put`: store the payload under its SHA-256.

    Raises:
        AgentError: EQ501 no space, EQ505 other bytes than announced, EQ506 fewer bytes than announced.
    """
    sha256 = call.fields.sha256("sha256")
    size_bytes = call.fields.integer("size_bytes", 0, 1 << 48)
    payload_bytes = call.fields.integer("payload_bytes", 0, 1 << 48)
    if size_bytes != payload_bytes:
        raise call.fields.refuse("payload_bytes", f"size_bytes ({size_bytes})")
    scratch.sweep(call.home)
    if blob_store.has(call.home, sha256, size_bytes) and blob_store.intact(call.home, sha256):
        for _ in blob_store.payload(call.payload, payload_bytes, sha256):
            pass  # the host sends it in any case: read to the end, so that its write does not fail
        return {"sha256": sha256, "stored": False}
    _store(call, sha256, size_bytes)
    return {"sha256": sha256, "stored": True}


def _store(call: Call, sha256: str, size_bytes: int) -> None:
    # Received without the lock: a slow upload must not keep the device from being asked or rolled back.
    temporary = scratch.path(call.home, "put-" + sha256)
    blob_store.check_space(call.home, "blob " + sha256[:12], size_bytes)
    try:
        blob_store.receive(call.payload, size_bytes, temporary, sha256)
        with lock.hold(call.home):
            disk.replace(temporary, call.home.blob(sha256))
            disk.sync_folder(call.home.blobs)
    finally:
        scratch.remove(temporary)
