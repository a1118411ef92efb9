"""Uploading contents: several in one call, only the chunks that the device does not have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.fleet.chunks import CHUNK_BYTES, Content, chunk_digests
from edgeq.fleet.client import AgentClient
from edgeq.fleet.first_call import NotPlaced
from edgeq.fleet.packing import Packer
from edgeq_agent import wire

# The agent keeps a file open for each.
_BLOBS_A_CALL = 256
_DEADLINE_S = 120.0

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
    deadline_s: float = _DEADLINE_S,
    on_chunk: OnChunk | None = None,
) -> Uploaded:
    """Bring contents to a device; what was cut before goes on where it ended.

    Args:
        deadline_s: how long the agent may be silent while nothing moves.
        on_chunk: called with a content and a number of its bytes that need not be sent any more: they went
            out, or were there; from another thread.

    Raises:
        SourceChanged: a content is not what its digest says; nothing of this call was sent.
        DeviceError: EQ501 no space, EQ505 a file changed while it was sent.
        TransportError: the way to the device failed; the next upload continues.
    """
    unique = list({content.sha256: content for content in contents}.values())
    stored: list[str] = []
    sent_bytes = resumed_bytes = 0
    for first in range(0, len(unique), _BLOBS_A_CALL):
        talk, answer = _call(client, unique[first : first + _BLOBS_A_CALL], deadline_s, on_chunk)
        stored += [str(blob["sha256"]) for blob in answer["blobs"] if blob["stored"]]
        sent_bytes += talk.sent_bytes
        resumed_bytes += int(answer["resumed_bytes"])
    return Uploaded(stored=tuple(stored), sent_bytes=sent_bytes, resumed_bytes=resumed_bytes)


def _call(
    client: AgentClient, contents: Sequence[Content], deadline_s: float, on_chunk: OnChunk | None
) -> tuple[_Conversation, dict[str, Any]]:
    talk = _Conversation(contents, on_chunk)
    try:
        return talk, client.call("upload", talk.request(), stream=talk, deadline_s=deadline_s)
    except NotPlaced:
        client.place()
        talk = _Conversation(contents, on_chunk)
        return talk, client.call("upload", talk.request(), stream=talk, deadline_s=deadline_s)


class _Conversation:
    """The host's side of one call of `upload`: offers, waits for what is wanted, and sends that."""

    def __init__(self, contents: Sequence[Content], on_chunk: OnChunk | None) -> None:
        self.sent_bytes = 0
        self._contents = contents
        self._on_chunk = on_chunk
        self._wanted: list[list[int]] | None = None
        self._told = threading.Event()

    @property
    def size_bytes(self) -> int:
        """The most that may travel."""
        return sum(content.size_bytes for content in self._contents)

    def request(self) -> dict[str, Any]:
        """Return the offer."""
        return {
            "blobs": [
                {
                    "sha256": content.sha256,
                    "size_bytes": content.size_bytes,
                    "chunk_bytes": CHUNK_BYTES,
                    "chunks": chunk_digests(content),
                }
                for content in self._contents
            ]
        }

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take the agent's `wanted`.

        Raises:
            WireError: it wants what was not offered.
        """
        if message.get("event") != "progress" or message.get("step") != "wanted":
            return
        self._wanted = _checked(message.get("chunks"), self._contents)
        self._told.set()

    def pieces(self) -> Iterator[bytes]:
        """Yield the frames, once it is known which."""
        self._told.wait()
        packer = Packer()
        for number, wanted in enumerate(self._wanted or ()):
            content = self._contents[number]
            self._tell(content, content.size_bytes - sum(_length(content, chunk) for chunk in wanted))
            for chunk, data in content.read(iter(wanted)):
                packing, body = packer.pack(data)
                started_s = time.perf_counter()
                yield wire.frame_header(packing, number, chunk, len(body)) + body
                packer.sent(len(body), time.perf_counter() - started_s)
                self.sent_bytes += len(body)
                self._tell(content, len(data))

    def close(self) -> None:
        """Nothing more is wanted: lets `pieces` end where it still waits."""
        self._told.set()

    def _tell(self, content: Content, size_bytes: int) -> None:
        if self._on_chunk is not None and size_bytes:
            self._on_chunk(content, size_bytes)


def _length(content: Content, chunk: int) -> int:
    return min(CHUNK_BYTES, content.size_bytes - chunk * CHUNK_BYTES)


def _checked(ranges: Any, contents: Sequence[Content]) -> list[list[int]]:
    """Return the chunks that are wanted of each content; what a device says is checked like any input."""
    try:
        if len(ranges) != len(contents):
            raise ValueError(f"{len(ranges)} blobs")
        return [
            _chunks(of_one, -(-content.size_bytes // CHUNK_BYTES))
            for of_one, content in zip(ranges, contents, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise wire.WireError(f"it wants chunks that were not offered: {error}") from error


def _chunks(ranges: Any, count: int) -> list[int]:
    found: list[int] = []
    for first, many in ranges:
        after = found[-1] + 1 if found else 0
        if not (
            isinstance(first, int) and isinstance(many, int) and after <= first and 0 < many <= count - first
        ):
            raise ValueError(f"{many} from {first} of {count}")
        found += range(first, first + many)
    return found
