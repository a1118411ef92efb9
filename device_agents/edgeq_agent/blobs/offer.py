"""What a host offers to upload: blobs, and the chunks they travel in."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent.calls.fields import MAX_SIZE_BYTES, Fields, bad
from edgeq_agent.wire import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES

# Each blob of an upload is an open file while it arrives; a host with more blobs sends them in several calls.
MAX_BLOBS = 256


class Offer(NamedTuple):
    """One blob: its digest, its size, and the size of the chunks that it is sent in."""

    sha256: str
    size_bytes: int
    chunk_bytes: int

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return -(-self.size_bytes // self.chunk_bytes)

    def start(self, chunk: int) -> int:
        """Return the offset of a chunk in bytes."""
        return chunk * self.chunk_bytes

    def length(self, chunk: int) -> int:
        """Return the size of a chunk in bytes; the last one is shorter."""
        return min(self.chunk_bytes, self.size_bytes - self.start(chunk))


def parse(request: Fields) -> list[Offer]:
    """Return the offers of a request.

    Raises:
        AgentError: EQ512, it offers no blob, too many, or one twice.
    """
    expected = f"a list of 1 to {MAX_BLOBS} blobs"
    offers = request.list_of("blobs", _offer, expected, low=1, high=MAX_BLOBS)
    if len({offer.sha256 for offer in offers}) != len(offers):
        raise bad("blobs", "each blob once", [offer.sha256[:12] for offer in offers])
    return offers


def _offer(request: Fields, name: str) -> Offer:
    blob = request.object(name, "objects with sha256, size_bytes and chunk_bytes")
    return Offer(
        sha256=blob.sha256("sha256"),
        size_bytes=blob.integer("size_bytes", 0, MAX_SIZE_BYTES),
        chunk_bytes=blob.integer("chunk_bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES),
    )
