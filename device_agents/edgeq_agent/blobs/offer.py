"""What a host offers to upload: blobs, and in chunks of which size they travel."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent.calls import request
from edgeq_agent.wire import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, Json

# Each is an open file while it arrives; a host with more sends them in several calls.
MAX_BLOBS = 256
MAX_BLOB_BYTES = 1 << 48


class Offer(NamedTuple):
    """One blob: what it will be called, how large it is, and in which pieces it comes."""

    sha256: str
    size_bytes: int
    chunk_bytes: int

    @property
    def chunk_count(self) -> int:
        """How many chunks there are."""
        return -(-self.size_bytes // self.chunk_bytes)

    def start(self, chunk: int) -> int:
        """Return where a chunk begins."""
        return chunk * self.chunk_bytes

    def length(self, chunk: int) -> int:
        """Return a chunk's size; the last one is what is left."""
        return min(self.chunk_bytes, self.size_bytes - self.start(chunk))


def read(body: Json) -> list[Offer]:
    """Return the offers of a request.

    Raises:
        AgentError: EQ512, it offers none, or a blob twice.
    """
    items = body.get("blobs")
    if not isinstance(items, list) or not 0 < len(items) <= MAX_BLOBS:
        raise request.bad("blobs", f"a list of 1 to {MAX_BLOBS} blobs", items)
    offers = [_one(item) for item in items]
    if len({offer.sha256 for offer in offers}) != len(offers):
        raise request.bad("blobs", "each blob once", [offer.sha256[:12] for offer in offers])
    return offers


def _one(item: object) -> Offer:
    if not isinstance(item, dict):
        raise request.bad("blobs", "objects with sha256, size_bytes and chunk_bytes", item)
    size_bytes = request.integer(item, "size_bytes", 0, MAX_BLOB_BYTES)
    chunk_bytes = request.integer(item, "chunk_bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
    return Offer(request.sha256(item, "sha256"), size_bytes, chunk_bytes)
