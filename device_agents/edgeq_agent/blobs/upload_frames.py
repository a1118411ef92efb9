"""The offers and frames of an upload: parsed from untrusted input, and checked against each other."""

from __future__ import annotations

import zlib
from typing import Iterator, List, NamedTuple, Set

from edgeq_agent.calls.fields import Fields, bad
from edgeq_agent.calls.stdin import IdleTimeout, Stdin
from edgeq_agent.errors import DIGEST_MISMATCH, SHORT_PAYLOAD, AgentError
from edgeq_agent.wire import (
    AS_IT_IS,
    DONE,
    FRAME_HEADER_BYTES,
    MAX_CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    ZLIB,
    parse_frame_header,
)

# Each blob of an upload is an open file while it arrives; a host with more blobs sends them in several calls.
MAX_BLOBS = 256


class Offer(NamedTuple):
    """One blob that the host offers: its digest, its size, and the size of the chunks that it is sent in."""

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


def parse_offers(request: Fields) -> list[Offer]:
    """Return the offers of a request.

    Raises:
        AgentError: EQ512, it offers no blob, too many, or one twice.
    """
    expected = f"a list of 1 to {MAX_BLOBS} blobs"
    offers = request.list_of("blobs", _parse_offer, expected, low=1, high=MAX_BLOBS)
    if len({offer.sha256 for offer in offers}) != len(offers):
        raise bad("blobs", "each blob once", [offer.sha256[:12] for offer in offers])
    return offers


def _parse_offer(request: Fields, name: str) -> Offer:
    blob = request.object(name, "objects with sha256, size_bytes and chunk_bytes")
    return Offer(
        sha256=blob.sha256("sha256"),
        size_bytes=blob.size_bytes("size_bytes"),
        chunk_bytes=blob.integer("chunk_bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES),
    )


class Frame(NamedTuple):
    """A chunk as it was sent, or, with the packing `DONE`, the end of a blob.

    Attributes:
        blob: the index of the blob's offer.
        data: the bytes as they were sent.
        length: the size of the unpacked chunk in bytes.
    """

    blob: int
    chunk: int
    packing: int
    data: bytes | bytearray
    length: int
    subject: str

    def unpack(self) -> bytes | bytearray:
        """Return the chunk's own bytes.

        Raises:
            AgentError: EQ505, it does not unpack to its size.
        """
        if self.packing == AS_IT_IS:
            return self.data
        try:
            stream = zlib.decompressobj()
            # At most one byte more than allowed is unpacked, however large the result would be.
            data = stream.decompress(self.data, self.length + 1)
            complete = stream.eof and len(data) == self.length
            problem = "does not unpack to its size"
        except zlib.error as error:
            complete, problem = False, f"does not unpack: {error}"
        if not complete:
            raise AgentError(DIGEST_MISMATCH, f"{self.subject}, chunk {self.chunk}", problem)
        return data


class Frames:
    """Reads frames until every offered blob has ended.

    A chunk is accepted once, so the number of frames is bounded.
    """

    def __init__(self, stdin: Stdin, offers: List[Offer]) -> None:
        self._stdin = stdin
        self._offers = offers
        self._received: List[Set[int]] = [set() for _ in offers]
        self._open = set(range(len(offers)))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in the order in which they arrive.

        Raises:
            AgentError: EQ506 the connection ended early, EQ512 a frame does not match the offers.
        """
        while self._open:
            yield self._next()

    def received_bytes(self, blob: int) -> int:
        """Return the unpacked size of the chunks of a blob that have arrived."""
        return sum(self._offers[blob].length(chunk) for chunk in self._received[blob])

    def _next(self) -> Frame:
        packing, blob, chunk, size_bytes = parse_frame_header(self._read(FRAME_HEADER_BYTES, "upload"))
        if blob not in self._open:
            raise bad("frame", "a blob that was offered and has not ended", blob)
        offer = self._offers[blob]
        subject = "blob " + offer.sha256[:12]
        if packing == DONE:
            if (chunk, size_bytes) != (0, 0):
                raise bad("frame", "an end without a chunk", f"chunk {chunk}, {size_bytes} bytes")
            self._open.discard(blob)
            return Frame(blob, 0, packing, b"", 0, subject)
        if packing not in (AS_IT_IS, ZLIB):
            raise bad("frame", "a known packing", packing)
        if not chunk < offer.chunk_count or chunk in self._received[blob]:
            raise bad("frame", f"each of the {offer.chunk_count} chunks once", f"chunk {chunk}")
        length = offer.length(chunk)
        if not (size_bytes == length if packing == AS_IT_IS else size_bytes < length):
            raise bad("frame", f"{length} bytes, fewer when packed", size_bytes)
        data = self._read(size_bytes, subject)
        self._received[blob].add(chunk)
        return Frame(blob, chunk, packing, data, length, subject)

    def _read(self, count: int, subject: str) -> bytearray:
        try:
            data = self._stdin.read_exactly(count)
            problem = "the connection ended early"
        except IdleTimeout as timeout:
            data, problem = bytearray(), f"the connection was {timeout}"
        if len(data) != count:
            raise AgentError(
                SHORT_PAYLOAD,
                subject,
                problem,
                hint="run the same command again: complete chunks are kept and not sent again",
                transient=True,
            )
        return data
