"""The frames of an upload: read from a stream that may say anything, checked against what was offered."""

from __future__ import annotations

import zlib
from typing import Iterator, List, NamedTuple, Set

from edgeq_agent.blobs.offer import Offer
from edgeq_agent.calls.request import bad
from edgeq_agent.calls.stdin import Silence, Source
from edgeq_agent.errors import DIGEST_MISMATCH, SHORT_PAYLOAD, AgentError
from edgeq_agent.wire import AS_IT_IS, DONE, FRAME_HEADER_BYTES, ZLIB, parse_frame_header


class Frame(NamedTuple):
    """A chunk as it travelled, or, with the packing `DONE`, the end of a blob.

    Attributes:
        blob: the number of its offer.
        length: the size of the chunk's own bytes.
    """

    blob: int
    chunk: int
    packing: int
    data: bytes | bytearray
    length: int
    subject: str

    def unpacked(self) -> bytes | bytearray:
        """Return the chunk's own bytes.

        Raises:
            AgentError: EQ505, it does not unpack to its size.
        """
        if self.packing == AS_IT_IS:
            return self.data
        try:
            stream = zlib.decompressobj()
            # One byte more than it may be is asked for, no matter what it unpacks to.
            data = stream.decompress(self.data, self.length + 1)
            whole = stream.eof and len(data) == self.length
            problem = "does not unpack to its size"
        except zlib.error as error:
            whole, problem = False, f"does not unpack: {error}"
        if not whole:
            raise AgentError(DIGEST_MISMATCH, f"{self.subject}, chunk {self.chunk}", problem)
        return data


class Frames:
    """Yields frames until every blob has ended; a chunk comes once at most, so there is an end to it."""

    def __init__(self, stream: Source, offers: List[Offer]) -> None:
        self._stream = stream
        self._offers = offers
        self._taken: List[Set[int]] = [set() for _ in offers]
        self._open = set(range(len(offers)))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in the order in which they come.

        Raises:
            AgentError: EQ506 the connection ended early, EQ512 a frame of what was not offered.
        """
        while self._open:
            yield self._next()

    def taken_bytes(self, blob: int) -> int:
        """Return the size of the chunks of a blob that came so far, unpacked."""
        return sum(self._offers[blob].length(chunk) for chunk in self._taken[blob])

    def _next(self) -> Frame:
        packing, blob, chunk, size_bytes = parse_frame_header(self._exactly(FRAME_HEADER_BYTES, "upload"))
        if blob not in self._open:
            raise bad("frame", "a blob that was offered and has not ended", blob)
        one = self._offers[blob]
        subject = "blob " + one.sha256[:12]
        if packing == DONE:
            if (chunk, size_bytes) != (0, 0):
                raise bad("frame", "an end without a chunk", f"chunk {chunk}, {size_bytes} bytes")
            self._open.discard(blob)
            return Frame(blob, 0, packing, b"", 0, subject)
        if packing not in (AS_IT_IS, ZLIB):
            raise bad("frame", "a packing that is known", packing)
        if not chunk < one.chunk_count or chunk in self._taken[blob]:
            raise bad("frame", f"each of the {one.chunk_count} chunks once", f"chunk {chunk}")
        length = one.length(chunk)
        if not (size_bytes == length if packing == AS_IT_IS else size_bytes < length):
            raise bad("frame", f"{length} bytes, fewer when packed", size_bytes)
        data = self._exactly(size_bytes, subject)
        self._taken[blob].add(chunk)
        return Frame(blob, chunk, packing, data, length, subject)

    def _exactly(self, count: int, subject: str) -> bytearray:
        try:
            data = self._stream.read_exactly(count)
            problem = "the connection ended early"
        except Silence as silence:
            data, problem = bytearray(), f"the connection was {silence}"
        if len(data) != count:
            raise AgentError(
                SHORT_PAYLOAD,
                subject,
                problem,
                hint="run the same command again: what arrived whole is kept and not sent twice",
                transient=True,
            )
        return data
