"""Verb `upload`: several blobs in one call, chunk by chunk; what arrived before is not sent again."""

from __future__ import annotations

import queue
import threading
import zlib
from contextlib import ExitStack
from typing import List, NamedTuple

from edgeq_agent import blobs, disk, offer, partial, scratch
from edgeq_agent.call import Call
from edgeq_agent.errors import DIGEST_MISMATCH, SHORT_PAYLOAD, AgentError
from edgeq_agent.offer import Offer
from edgeq_agent.partial import Partial
from edgeq_agent.request import bad
from edgeq_agent.source import Silence, Source
from edgeq_agent.wire import AS_IT_IS, FRAME_HEADER_BYTES, ZLIB, Json, parse_frame_header

# Chunks in memory between the reader and the writer.
_QUEUED = 4
_POLL_S = 0.2


class _Wanted(NamedTuple):
    """A blob that is not there, and its chunks that are not."""

    number: int
    offer: Offer
    target: Partial
    chunks: List[int]

    @property
    def size_bytes(self) -> int:
        return sum(self.offer.length(chunk) for chunk in self.chunks)


class _Frame(NamedTuple):
    wanted: _Wanted
    chunk: int
    packing: int
    data: bytearray


def upload(call: Call) -> Json:
    """Verb `upload`: offered blobs are stored under their SHA-256; see `wire` for the conversation.

    Raises:
        AgentError: EQ501 no space, EQ505 other bytes than announced, EQ506 the connection ended early, EQ508
            the device is busy, EQ512 the offer or a frame is none. What arrived whole by then stays for the
            next try.
    """
    offers = offer.read(call.request)
    scratch.sweep(call.home)
    with ExitStack() as opened:
        return _upload(call, offers, _look(call, offers, opened))


def _upload(call: Call, offers: List[Offer], wanted: List[_Wanted]) -> Json:
    needed_bytes = sum(blob.size_bytes for blob in wanted)
    partial.make_room(call.home, needed_bytes, [blob.offer.sha256 for blob in wanted], f"{len(wanted)} blobs")
    ranges: List[List[List[int]]] = [[] for _ in offers]
    for blob in wanted:
        ranges[blob.number] = _ranges(blob.chunks)
    offered_bytes = sum(blob.offer.size_bytes for blob in wanted)
    call.answer.progress("wanted", chunks=ranges, wanted_bytes=needed_bytes)
    writer = _Writer(call.payload, wanted)
    received_bytes = writer.run()
    stored = writer.stored
    if stored:
        disk.sync_folder(call.home.blobs)
    return {
        "blobs": [{"sha256": one.sha256, "stored": one.sha256 in stored} for one in offers],
        "received_bytes": received_bytes,
        "resumed_bytes": offered_bytes - needed_bytes,
    }


def _look(call: Call, offers: List[Offer], opened: ExitStack) -> List[_Wanted]:
    wanted = []
    for number, one in enumerate(offers):
        if blobs.has(call.home, one.sha256, one.size_bytes) and blobs.intact(call.home, one.sha256):
            continue
        # Open from here to the end: what was hashed just now is what becomes the blob.
        target = Partial(call.home, one)
        opened.callback(target.close)
        wanted.append(_Wanted(number, one, target, target.missing()))
    return wanted


def _ranges(chunks: List[int]) -> List[List[int]]:
    found: List[List[int]] = []
    for chunk in chunks:
        if found and chunk == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([chunk, 1])
    return found


class _Writer:
    """Reads frames while a thread of its own verifies and writes them; hashing lets the reader run on."""

    def __init__(self, stream: Source, wanted: List[_Wanted]) -> None:
        self.stored: List[str] = []
        self._stream = stream
        self._wanted = wanted
        self._queue: queue.Queue[_Frame | None] = queue.Queue(_QUEUED)
        self._failed: List[Exception] = []

    def run(self) -> int:
        """Return how many bytes of chunks were read, once all is written, synced and named."""
        thread = threading.Thread(target=self._work)
        thread.start()
        received_bytes = 0
        try:
            for blob in self._wanted:
                for chunk in blob.chunks:
                    frame = _read(self._stream, blob, chunk)
                    received_bytes += len(frame.data)
                    self._put(frame)
        finally:
            # Also when the connection ended: what is in the queue is written, so that it is not sent again.
            self._put(None)
            thread.join()
        if self._failed:
            raise self._failed[0]
        return received_bytes

    def _put(self, frame: _Frame | None) -> None:
        while True:
            if self._failed:
                if frame is None:
                    return
                raise self._failed[0]
            try:
                self._queue.put(frame, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        try:
            for blob in self._wanted:
                if not self._blob(blob):
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the call waits for it
            self._failed.append(error)

    def _blob(self, blob: _Wanted) -> bool:
        try:
            for _ in blob.chunks:
                frame = self._queue.get()
                if frame is None:
                    return False
                blob.target.take(frame.chunk, _unpacked(frame))
            if blob.target.finish():
                self.stored.append(blob.offer.sha256)
            return True
        except OSError as error:
            if partial.ran_out(error):
                blob.target.discard()
            raise


def _read(stream: Source, blob: _Wanted, chunk: int) -> _Frame:
    header = _exactly(stream, FRAME_HEADER_BYTES, blob)
    packing, number, got, size_bytes = parse_frame_header(header)
    if (number, got) != (blob.number, chunk):
        raise bad("frame", f"chunk {chunk} of blob {blob.number}", f"chunk {got} of blob {number}")
    if packing not in (AS_IT_IS, ZLIB):
        raise bad("frame", "a packing that is known", packing)
    length = blob.offer.length(chunk)
    fits = size_bytes == length if packing == AS_IT_IS else size_bytes < length
    if not fits:
        raise bad("frame", f"{length} bytes, fewer when packed", size_bytes)
    return _Frame(blob, chunk, packing, _exactly(stream, size_bytes, blob))


def _exactly(stream: Source, count: int, blob: _Wanted) -> bytearray:
    try:
        data = stream.read_exactly(count)
        problem = "the connection ended early"
    except Silence as silence:
        data, problem = bytearray(), f"the connection was {silence}"
    if len(data) != count:
        raise AgentError(
            SHORT_PAYLOAD,
            "blob " + blob.offer.sha256[:12],
            problem,
            hint="run the same command again: what arrived whole is kept and not sent twice",
            transient=True,
        )
    return data


def _unpacked(frame: _Frame) -> bytes | bytearray:
    if frame.packing == AS_IT_IS:
        return frame.data
    length = frame.wanted.offer.length(frame.chunk)
    try:
        stream = zlib.decompressobj()
        # One byte more than it may be is asked for, no matter what it unpacks to.
        data = stream.decompress(frame.data, length + 1)
        whole = stream.eof and len(data) == length
        problem = "does not unpack to its size"
    except zlib.error as error:
        whole, problem = False, f"does not unpack: {error}"
    if not whole:
        raise AgentError(
            DIGEST_MISMATCH, f"blob {frame.wanted.offer.sha256[:12]}, chunk {frame.chunk}", problem
        )
    return data
