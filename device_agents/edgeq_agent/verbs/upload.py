"""Verbs `missing` and `upload`: receive several blobs in one call, in chunks; an upload resumes."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from typing import List, NamedTuple

from edgeq_agent.blobs import blob_store, partial
from edgeq_agent.blobs.partial import Partial
from edgeq_agent.blobs.upload_frames import Frame, Frames, Offer, parse_offers
from edgeq_agent.calls.call import Call
from edgeq_agent.storage import disk, scratch
from edgeq_agent.storage.home import free_bytes
from edgeq_agent.wire import DONE, Json

# How many chunks wait in memory between the reader and the writer.
_QUEUE_LENGTH = 4
_POLL_S = 0.2


def missing(call: Call) -> Json:
    """Verb `missing`: which of these blobs the device lacks, and of which it has a part (`begun`).

    It lacks a blob whose content is damaged: the release that it belongs to may be the one that serves.
    """
    sizes = call.fields.sizes("blobs")
    absent = sorted(
        sha
        for sha, size in sizes.items()
        if not (blob_store.has(call.home, sha, size) and blob_store.is_intact(call.home, sha))
    )
    begun = sorted(partial.begun(call.home).intersection(absent))
    return {"missing": absent, "begun": begun, "free_bytes": free_bytes(call.home.root)}


def upload(call: Call) -> Json:
    """Verb `upload`: store the offered blobs under their SHA-256; `wire` describes the conversation.

    Complete chunks stay for the next upload, whatever ends this one.

    Raises:
        AgentError: EQ501 no space, EQ505 other bytes than announced, EQ506 the connection ended early, EQ508
            the device is busy, EQ512 the offer or a frame is malformed.
    """
    offers = parse_offers(call.fields)
    scratch.sweep(call.home)
    with ExitStack() as opened:
        targets = [_target(call, offer, opened) for offer in offers]
        present = [None if target is None else target.chunk_digests() for target in targets]
        _make_room(call, offers, present)
        call.response.progress("wanted", blobs=present)
        writer = _Writer(offers, targets)
        received_bytes = writer.run(Frames(call.payload, offers))
    if writer.stored:
        disk.sync_folder(call.home.blobs)
    return {
        "blobs": [{"sha256": offer.sha256, "stored": offer.sha256 in writer.stored} for offer in offers],
        "received_bytes": received_bytes,
        "resumed_bytes": writer.resumed_bytes,
    }


def _target(call: Call, offer: Offer, opened: ExitStack) -> Partial | None:
    """Return the file that the blob is written to; None when the device has the blob."""
    sha256 = offer.sha256
    if blob_store.has(call.home, sha256, offer.size_bytes) and blob_store.is_intact(call.home, sha256):
        return None
    # The file stays open from here to the end: the content that is hashed now becomes the blob.
    target = Partial(call.home, offer)
    opened.callback(target.close)
    return target


def _make_room(call: Call, offers: List[Offer], present: List[List[str] | None]) -> None:
    missing = [(offer, chunks) for offer, chunks in zip(offers, present) if chunks is not None]
    needed_bytes = sum(
        max(0, offer.size_bytes - len(chunks) * offer.chunk_bytes) for offer, chunks in missing
    )
    keep = [offer.sha256 for offer, _ in missing]
    partial.make_room(call.home, needed_bytes, keep, f"{len(keep)} blobs")


class _Arrival(NamedTuple):
    frame: Frame
    target: Partial


class _Writer:
    """Reads frames while a second thread hashes and writes them; hashing releases the interpreter lock."""

    def __init__(self, offers: List[Offer], targets: List[Partial | None]) -> None:
        self.stored: List[str] = []
        self.resumed_bytes = 0
        self._offers = offers
        self._targets = targets
        self._queue: queue.Queue[_Arrival | None] = queue.Queue(_QUEUE_LENGTH)
        self._failed: List[BaseException] = []

    def run(self, frames: Frames) -> int:
        """Write all frames; return the received size in bytes once every blob is synced and named."""
        thread = threading.Thread(target=self._work)
        thread.start()
        received_bytes = 0
        try:
            for frame in frames:
                received_bytes += len(frame.data)
                target = self._targets[frame.blob]
                if target is None:
                    continue  # the device has this blob; the host sent the chunk before it knew
                if frame.packing == DONE:
                    self.resumed_bytes += target.offer.size_bytes - frames.received_bytes(frame.blob)
                self._put(_Arrival(frame, target))
        finally:
            # Also after a lost connection: the queued chunks are written, so that they are not sent again.
            self._put(None)
            thread.join()
            if self._failed:  # the cause; how the stream ended is only its effect
                raise self._failed[0]
        return received_bytes

    def _put(self, arrival: _Arrival | None) -> None:
        while True:
            if self._failed:
                if arrival is None:
                    return
                raise self._failed[0]
            try:
                self._queue.put(arrival, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        try:
            while True:
                arrival = self._queue.get()
                if arrival is None:
                    return
                self._write(arrival)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the call
            self._failed.append(error)

    def _write(self, arrival: _Arrival) -> None:
        frame, target = arrival
        try:
            if frame.packing != DONE:
                target.write(frame.chunk, frame.unpack())
            elif target.finish():
                self.stored.append(target.offer.sha256)
        except OSError as error:
            if partial.is_out_of_space(error):
                target.discard()
            raise
