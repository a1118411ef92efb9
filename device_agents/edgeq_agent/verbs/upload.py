"""Verbs `missing` and `upload`: several blobs in one call, by chunks; what is there is not sent again."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from typing import List, NamedTuple

from edgeq_agent.blobs import blob_store, offer, partial
from edgeq_agent.blobs.offer import Offer
from edgeq_agent.blobs.partial import Partial
from edgeq_agent.blobs.upload_frames import Frame, Frames
from edgeq_agent.calls.call import Call
from edgeq_agent.storage import disk, home, scratch
from edgeq_agent.wire import DONE, Json

# Chunks in memory between the reader and the writer.
_QUEUED = 4
_POLL_S = 0.2


def missing(call: Call) -> Json:
    """Verb `missing`: which of these blobs the device does not have, and of which it has a part (`begun`)."""
    wanted = call.fields.sizes("blobs")
    absent = sorted(sha for sha, size in wanted.items() if not blob_store.has(call.home, sha, size))
    begun = sorted(partial.begun(call.home).intersection(absent))
    return {"missing": absent, "begun": begun, "free_bytes": home.free_bytes(call.home.root)}


def upload(call: Call) -> Json:
    """Verb `upload`: offered blobs are stored under their SHA-256; see `wire` for the conversation.

    Raises:
        AgentError: EQ501 no space, EQ505 other bytes than announced, EQ506 the connection ended early, EQ508
            the device is busy, EQ512 the offer or a frame is none. What arrived whole by then stays for the
            next try.
    """
    offers = offer.parse(call.fields)
    scratch.sweep(call.home)
    with ExitStack() as opened:
        targets = [_target(call, one, opened) for one in offers]
        held = [None if target is None else target.held() for target in targets]
        _make_room(call, offers, held)
        call.response.progress("wanted", blobs=held)
        writer = _Writer(offers, targets)
        received_bytes = writer.run(Frames(call.payload, offers))
    if writer.stored:
        disk.sync_folder(call.home.blobs)
    return {
        "blobs": [{"sha256": one.sha256, "stored": one.sha256 in writer.stored} for one in offers],
        "received_bytes": received_bytes,
        "resumed_bytes": writer.resumed_bytes,
    }


def _target(call: Call, one: Offer, opened: ExitStack) -> Partial | None:
    if blob_store.has(call.home, one.sha256, one.size_bytes) and blob_store.intact(call.home, one.sha256):
        return None
    # Open from here to the end: what is hashed now is what becomes the blob.
    target = Partial(call.home, one)
    opened.callback(target.close)
    return target


def _make_room(call: Call, offers: List[Offer], held: List[List[str] | None]) -> None:
    lacking = [(one, have) for one, have in zip(offers, held) if have is not None]
    needed_bytes = sum(max(0, one.size_bytes - len(have) * one.chunk_bytes) for one, have in lacking)
    wanted = [one.sha256 for one, _ in lacking]
    partial.make_room(call.home, needed_bytes, wanted, f"{len(wanted)} blobs")


class _Arrival(NamedTuple):
    frame: Frame
    target: Partial


class _Writer:
    """Reads frames while a thread of its own hashes and writes them; hashing lets the reader run on."""

    def __init__(self, offers: List[Offer], targets: List[Partial | None]) -> None:
        self.stored: List[str] = []
        self.resumed_bytes = 0
        self._offers = offers
        self._targets = targets
        self._queue: queue.Queue[_Arrival | None] = queue.Queue(_QUEUED)
        self._failed: List[BaseException] = []

    def run(self, frames: Frames) -> int:
        """Return how many bytes of chunks were read, once all is written, synced and named."""
        thread = threading.Thread(target=self._work)
        thread.start()
        received_bytes = 0
        try:
            for frame in frames:
                received_bytes += len(frame.data)
                target = self._targets[frame.blob]
                if target is None:
                    continue  # it is here: what was on the way before the host heard so
                if frame.packing == DONE:
                    self.resumed_bytes += target.offer.size_bytes - frames.taken_bytes(frame.blob)
                self._put(_Arrival(frame, target))
        finally:
            # Also when the connection ended: what is in the queue is written, so that it is not sent again.
            self._put(None)
            thread.join()
            if self._failed:  # it says more than how the stream ended
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
                self._take(arrival)
        except BaseException as error:  # noqa: BLE001 - raised again where the call waits for it
            self._failed.append(error)

    def _take(self, arrival: _Arrival) -> None:
        frame, target = arrival
        try:
            if frame.packing != DONE:
                target.take(frame.chunk, frame.unpacked())
            elif target.finish():
                self.stored.append(target.offer.sha256)
        except OSError as error:
            if partial.ran_out(error):
                target.discard()
            raise
