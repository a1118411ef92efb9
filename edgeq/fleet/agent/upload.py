"""Upload contents to a device: only the chunks that it lacks, compressed where that saves time."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgeq.errors import SourceChanged
from edgeq.fleet.agent.client import AgentClient, AgentMessage
from edgeq.fleet.agent.combined_bootstrap import AgentFileMissing
from edgeq.fleet.responses import UploadResult
from edgeq_agent import wire
from edgeq_agent.wire import AS_IT_IS, ZLIB

CHUNK_BYTES = 1024 * 1024
# The agent keeps a file open for each.
_BLOBS_PER_CALL = 256
_DEADLINE_S = 120.0
_SHA256 = re.compile("[0-9a-f]{64}")

_ZLIB_LEVEL = 1
# A chunk's compression ratio is estimated from this many samples of it.
_SAMPLES = 4
_SAMPLE_BYTES = 2048
# Saving less than this is not worth the device's time to decompress.
_MIN_SAVING = 0.1
# Buffers on the way look like a very fast link; until this much was sent, its speed is unknown.
_BUFFERED_BYTES = 8 * 1024 * 1024
_INITIAL_BYTES_PER_S = 50e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes to be stored on a device.

    Attributes:
        sha256: names them there; the device refuses bytes with another digest.
        source: the bytes, or the file that holds them.
    """

    sha256: str
    size_bytes: int
    source: bytes | Path = field(repr=False)

    @classmethod
    def from_source(cls, source: bytes | Path) -> Content:
        """Return the content of bytes or of a file, with its present digest."""
        stream = io.BytesIO(source) if isinstance(source, bytes) else io.FileIO(source)
        with stream:
            digest = hashlib.file_digest(stream, "sha256")
        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        return cls(sha256=digest.hexdigest(), size_bytes=size_bytes, source=source)

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return -(-self.size_bytes // CHUNK_BYTES)

    def read(self) -> Iterator[bytes]:
        """Yield the chunks.

        Raises:
            SourceChanged: the file cannot be read, or its size has changed.
        """
        if isinstance(self.source, bytes):
            for start in range(0, self.size_bytes, CHUNK_BYTES):
                yield self.source[start : start + CHUNK_BYTES]
            return
        read_bytes = 0
        try:
            self._check_size(self.source.stat().st_size)
            with self.source.open("rb", buffering=0) as stream:
                while read_bytes < self.size_bytes:
                    length = min(CHUNK_BYTES, self.size_bytes - read_bytes)
                    data = stream.read(length)
                    read_bytes += len(data)
                    if len(data) != length:
                        break
                    yield data
        except OSError as error:
            raise SourceChanged(str(self.source), f"cannot be read: {error.strerror}") from error
        self._check_size(read_bytes)

    def _check_size(self, got_bytes: int) -> None:
        if got_bytes != self.size_bytes:
            raise SourceChanged(
                str(self.source),
                "has changed since its digest was computed",
                expected=f"{self.size_bytes} bytes",
                got=f"{got_bytes} bytes",
            )


OnChunk = Callable[[Content, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What an upload did.

    Attributes:
        stored: the digests of the contents that were new to the device.
        sent_bytes: payload as it was sent; of a compressed chunk the compressed size.
        resumed_bytes: what an earlier, interrupted upload had brought.
    """

    stored: tuple[str, ...]
    sent_bytes: int
    resumed_bytes: int


def upload(
    client: AgentClient,
    contents: Sequence[Content],
    *,
    partial_blobs: Collection[str] | None = None,
    deadline_s: float = _DEADLINE_S,
    on_chunk: OnChunk | None = None,
) -> Uploaded:
    """Store contents on a device; an interrupted upload is resumed.

    Args:
        partial_blobs: the digests of which the device may hold a part, as `missing` reports them. The others
            are sent at once, without waiting for the device to say which chunks it needs. None: it may hold a
            part of each.
        deadline_s: how long the agent may be silent while no bytes move.
        on_chunk: called with a content and the number of its bytes that are done: sent, or already on the
            device. Called from another thread.

    Raises:
        SourceChanged: the file of a content is gone, or its size has changed since its digest was computed.
        DeviceError: EQ501 no space, EQ505 a file's bytes have changed since its digest was computed.
        TransportError: the connection failed; the next upload resumes.
    """
    unique = list({content.sha256: content for content in contents}.values())
    waits = {content.sha256 for content in unique} if partial_blobs is None else set(partial_blobs)
    stored: list[str] = []
    sent_bytes = resumed_bytes = 0
    for first in range(0, len(unique), _BLOBS_PER_CALL):
        batch = unique[first : first + _BLOBS_PER_CALL]
        conversation, result = _call(client, partial(_Conversation, batch, waits, on_chunk), deadline_s)
        stored += [blob.sha256 for blob in result.blobs if blob.stored]
        sent_bytes += conversation.sent_bytes
        resumed_bytes += result.resumed_bytes
    return Uploaded(stored=tuple(stored), sent_bytes=sent_bytes, resumed_bytes=resumed_bytes)


def _call(
    client: AgentClient, begin: Callable[[], _Conversation], deadline_s: float
) -> tuple[_Conversation, UploadResult]:
    try:
        return _call_once(client, begin(), deadline_s)
    except AgentFileMissing:
        client.install_agent_file()
        return _call_once(client, begin(), deadline_s)


def _call_once(
    client: AgentClient, conversation: _Conversation, deadline_s: float
) -> tuple[_Conversation, UploadResult]:
    result = client.request(
        UploadResult, "upload", conversation.request(), stream=conversation, deadline_s=deadline_s
    )
    return conversation, result


class _Conversation:
    """The host's side of one call of `upload`: offers contents and sends the chunks that the device lacks."""

    def __init__(self, contents: Sequence[Content], waits: Collection[str], on_chunk: OnChunk | None) -> None:
        self.sent_bytes = 0
        self._contents = contents
        self._waits = waits
        self._on_chunk = on_chunk
        self._held: list[list[str] | None] | None = None
        self._answered = threading.Event()
        self._closed = False
        # Progress before the agent's first message is held back: a missing agent file received none of it.
        self._held_back: list[tuple[Content, int]] = []
        self._reporting = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """The most that may be sent."""
        return sum(content.size_bytes for content in self._contents)

    def request(self) -> dict[str, Any]:
        """Return the request, which offers the contents."""
        return {
            "blobs": [
                {"sha256": content.sha256, "size_bytes": content.size_bytes, "chunk_bytes": CHUNK_BYTES}
                for content in self._contents
            ]
        }

    def receive(self, message: AgentMessage) -> None:
        """Take the agent's message `wanted`, which lists the chunks that it holds.

        Raises:
            WireError: the message does not match the offer.
        """
        if message.step != "wanted":
            return
        self._held = parse_held(message.document.get("blobs"), self._contents)
        with self._reporting:
            self._answered.set()
            held_back, self._held_back = self._held_back, []
        for content, size_bytes in held_back:
            self._report(content, size_bytes)

    def pieces(self) -> Iterator[bytes]:
        """Yield the frames."""
        compressor = Compressor()
        for number, content in enumerate(self._contents):
            if content.sha256 in self._waits:
                self._answered.wait()
            if self._closed:
                return
            yield from self._frames(number, content, compressor)
            if self._closed:
                return
            yield wire.frame_header(wire.DONE, number, 0, 0)

    def close(self) -> None:
        """End `pieces`, even if it waits for the agent."""
        self._closed = True
        self._answered.set()

    def _frames(self, number: int, content: Content, compressor: Compressor) -> Iterator[bytes]:
        left_bytes = content.size_bytes
        if not self._needed(number):
            self._report(content, left_bytes)
            return
        for chunk, data in enumerate(content.read()):
            if self._closed:
                return
            if not self._needed(number):
                self._report(content, left_bytes)
                return
            if not self._holds(number, chunk, data):
                encoding, encoded = compressor.encode(data)
                started_s = time.perf_counter()
                yield wire.frame_header(encoding, number, chunk, len(encoded)) + encoded
                compressor.sent(len(encoded), time.perf_counter() - started_s)
                self.sent_bytes += len(encoded)
            left_bytes -= len(data)
            self._report(content, len(data))

    def _needed(self, number: int) -> bool:
        return self._held is None or self._held[number] is not None

    def _holds(self, number: int, chunk: int, data: bytes) -> bool:
        held = self._held[number] if self._held else None
        if held is None or chunk >= len(held):
            return False
        return hashlib.sha256(data).hexdigest() == held[chunk]

    def _report(self, content: Content, size_bytes: int) -> None:
        if self._on_chunk is None or not size_bytes:
            return
        with self._reporting:
            if not self._answered.is_set():
                self._held_back.append((content, size_bytes))
                return
        self._on_chunk(content, size_bytes)


def parse_held(held: Any, contents: Sequence[Content]) -> list[list[str] | None]:
    """Return the digests of the chunks that the device holds of each content; None for a complete one."""
    if not isinstance(held, list) or len(held) != len(contents):
        raise wire.WireError("it lists other blobs than were offered")
    for digests, content in zip(held, contents, strict=True):
        if digests is None:
            continue
        if not isinstance(digests, list) or len(digests) > content.chunk_count:
            raise wire.WireError(f"it lists more chunks of {content.sha256[:12]} than were offered")
        if not all(isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in digests):
            raise wire.WireError(f"its list for {content.sha256[:12]} is not one of digests")
    return held


class Compressor:
    """Decides for each chunk whether to compress it; measures how fast compression and the link are.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._compressed_bytes, self._compressing_s = 0, 0.0
        self._sent_bytes, self._sending_s = 0, 0.0

    def encode(self, data: bytes) -> tuple[int, bytes]:
        """Return the encoding of a chunk and its encoded bytes."""
        saving = 1.0 - _sampled_ratio(data)
        if saving < _MIN_SAVING or not self._pays(saving):
            return AS_IT_IS, data
        started_s = self._clock()
        compressed = zlib.compress(data, _ZLIB_LEVEL)
        self._compressing_s += self._clock() - started_s
        self._compressed_bytes += len(data)
        if len(compressed) > (1.0 - _MIN_SAVING) * len(data):
            return AS_IT_IS, data
        return ZLIB, compressed

    def sent(self, size_bytes: int, seconds: float) -> None:
        """Record that `size_bytes` took `seconds` to send."""
        self._sent_bytes += size_bytes
        self._sending_s += seconds

    def _pays(self, saving: float) -> bool:
        if self._sent_bytes < _BUFFERED_BYTES or self._sending_s == 0.0:
            return True
        saved_s = saving * self._sending_s / self._sent_bytes
        return saved_s > 1.0 / self._bytes_per_s()

    def _bytes_per_s(self) -> float:
        return self._compressed_bytes / self._compressing_s if self._compressing_s else _INITIAL_BYTES_PER_S


def _sampled_ratio(data: bytes) -> float:
    """Return the estimated compression ratio of a chunk, from samples spread over it."""
    if len(data) <= _SAMPLES * _SAMPLE_BYTES:
        sample = data
    else:
        step = (len(data) - _SAMPLE_BYTES) // (_SAMPLES - 1)
        sample = b"".join(data[at * step : at * step + _SAMPLE_BYTES] for at in range(_SAMPLES))
    return len(zlib.compress(sample, _ZLIB_LEVEL)) / len(sample) if sample else 1.0
