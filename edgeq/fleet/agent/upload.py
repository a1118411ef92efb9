"""Uploading contents: several in one call, only the chunks that the device does not have."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeq.fleet.agent.chunks import CHUNK_BYTES, Content
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.combined_bootstrap import NotPlaced
from edgeq.fleet.agent.packing import Packer
from edgeq.fleet.responses import wrong
from edgeq_agent import wire

# The agent keeps a file open for each.
_BLOBS_A_CALL = 256
_DEADLINE_S = 120.0
_SHA256 = re.compile("[0-9a-f]{64}")

OnChunk = Callable[[Content, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What an upload did.

    Attributes:
        stored: the digests of those that the device did not have before.
        sent_bytes: of contents, as they travelled; a packed chunk counts packed.
        resumed_bytes: what an earlier upload had brought already.
    """

    stored: tuple[str, ...]
    sent_bytes: int
    resumed_bytes: int


def upload(
    client: AgentClient,
    contents: Sequence[Content],
    *,
    begun: Collection[str] | None = None,
    deadline_s: float = _DEADLINE_S,
    on_chunk: OnChunk | None = None,
) -> Uploaded:
    """Bring contents to a device; what was cut before goes on where it ended.

    Args:
        begun: the digests of which the device may have something, as its `missing` says. The others are sent
            at once, without waiting for what it wants of them. None: it may have something of each.
        deadline_s: how long the agent may be silent while nothing moves.
        on_chunk: called with a content and a number of its bytes that need not be sent any more: they went
            out, or were there; from another thread.

    Raises:
        SourceChanged: a content's file is gone, or has another size than its digest was taken of.
        DeviceError: EQ501 no space, EQ505 a file has other bytes than its digest was taken of.
        TransportError: the way to the device failed; the next upload continues.
    """
    unique = list({content.sha256: content for content in contents}.values())
    waits = {content.sha256 for content in unique} if begun is None else set(begun)
    stored: list[str] = []
    sent_bytes = resumed_bytes = 0
    for first in range(0, len(unique), _BLOBS_A_CALL):
        some = unique[first : first + _BLOBS_A_CALL]
        talk, answer = _call(client, partial(_Conversation, some, waits, on_chunk), deadline_s)
        stored += _stored(client.device.name, answer)
        sent_bytes += talk.sent_bytes
        resumed_bytes += int(answer["resumed_bytes"])
    return Uploaded(stored=tuple(stored), sent_bytes=sent_bytes, resumed_bytes=resumed_bytes)


def _stored(name: str, answer: Mapping[str, Any]) -> list[str]:
    blobs, resumed_bytes = answer.get("blobs"), answer.get("resumed_bytes")
    if not isinstance(blobs, list) or not all(
        isinstance(blob, Mapping) and isinstance(blob.get("stored"), bool) for blob in blobs
    ):
        raise wrong(name, "upload: blobs", "a list of {sha256, stored}", blobs)
    if isinstance(resumed_bytes, bool) or not isinstance(resumed_bytes, int):
        raise wrong(name, "upload: resumed_bytes", "a whole number", resumed_bytes)
    return [str(blob.get("sha256")) for blob in blobs if blob["stored"]]


def _call(
    client: AgentClient, begin: Callable[[], _Conversation], deadline_s: float
) -> tuple[_Conversation, dict[str, Any]]:
    talk = begin()
    try:
        return talk, client.call("upload", talk.request(), stream=talk, deadline_s=deadline_s)
    except NotPlaced:
        client.place()
        talk = begin()
        return talk, client.call("upload", talk.request(), stream=talk, deadline_s=deadline_s)


class _Conversation:
    """The host's side of one call of `upload`: offers, sends, and leaves out what the device says it has."""

    def __init__(self, contents: Sequence[Content], waits: Collection[str], on_chunk: OnChunk | None) -> None:
        self.sent_bytes = 0
        self._contents = contents
        self._waits = waits
        self._on_chunk = on_chunk
        self._held: list[list[str] | None] | None = None
        self._told = threading.Event()
        self._closed = False
        # What went out before the agent said a word: an agent that is not there took none of it.
        self._untold: list[tuple[Content, int]] = []
        self._telling = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """The most that may travel."""
        return sum(content.size_bytes for content in self._contents)

    def request(self) -> dict[str, Any]:
        """Return the offer."""
        return {
            "blobs": [
                {"sha256": content.sha256, "size_bytes": content.size_bytes, "chunk_bytes": CHUNK_BYTES}
                for content in self._contents
            ]
        }

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take the agent's `wanted`.

        Raises:
            WireError: it does not fit what was offered.
        """
        if message.get("event") != "progress" or message.get("step") != "wanted":
            return
        self._held = _checked(message.get("blobs"), self._contents)
        with self._telling:
            self._told.set()
            untold, self._untold = self._untold, []
        for content, size_bytes in untold:
            self._tell(content, size_bytes)

    def pieces(self) -> Iterator[bytes]:
        """Yield the frames."""
        packer = Packer()
        for number, content in enumerate(self._contents):
            if content.sha256 in self._waits:
                self._told.wait()
            if self._closed:
                return
            yield from self._frames(number, content, packer)
            if self._closed:
                return
            yield wire.frame_header(wire.DONE, number, 0, 0)

    def close(self) -> None:
        """Nothing more is wanted: lets `pieces` end where it still waits."""
        self._closed = True
        self._told.set()

    def _frames(self, number: int, content: Content, packer: Packer) -> Iterator[bytes]:
        left_bytes = content.size_bytes
        if not self._lacks(number):
            self._tell(content, left_bytes)
            return
        for chunk, data in enumerate(content.read()):
            if self._closed:
                return
            if not self._lacks(number):
                self._tell(content, left_bytes)
                return
            if not self._has(number, chunk, data):
                packing, body = packer.pack(data)
                started_s = time.perf_counter()
                yield wire.frame_header(packing, number, chunk, len(body)) + body
                packer.sent(len(body), time.perf_counter() - started_s)
                self.sent_bytes += len(body)
            left_bytes -= len(data)
            self._tell(content, len(data))

    def _lacks(self, number: int) -> bool:
        return self._held is None or self._held[number] is not None

    def _has(self, number: int, chunk: int, data: bytes) -> bool:
        held = self._held[number] if self._held else None
        if held is None or chunk >= len(held):
            return False
        return hashlib.sha256(data).hexdigest() == held[chunk]

    def _tell(self, content: Content, size_bytes: int) -> None:
        if self._on_chunk is None or not size_bytes:
            return
        with self._telling:
            if not self._told.is_set():
                self._untold.append((content, size_bytes))
                return
        self._on_chunk(content, size_bytes)


def _checked(held: Any, contents: Sequence[Content]) -> list[list[str] | None]:
    """Return what the device has of each content; what a device says is checked like any input."""
    if not isinstance(held, list) or len(held) != len(contents):
        raise wire.WireError("it wants other blobs than were offered")
    for digests, content in zip(held, contents, strict=True):
        if digests is None:
            continue
        if not isinstance(digests, list) or len(digests) > content.chunk_count:
            raise wire.WireError(f"it has more of {content.sha256[:12]} than was offered")
        if not all(isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in digests):
            raise wire.WireError(f"it tells no digests of {content.sha256[:12]}")
    return held
