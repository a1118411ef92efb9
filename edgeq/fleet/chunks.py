"""Contents as lists of chunks: what an upload offers, bound to the content's own digest."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.errors import SourceChanged

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that a device shall have.

    Attributes:
        sha256: what they are called there.
        source: the bytes, or the file that holds them.
    """

    sha256: str
    size_bytes: int
    source: bytes | Path = field(repr=False)

    @classmethod
    def of(cls, source: bytes | Path) -> Content:
        """Return a content under the digest that it has now."""
        with _opened(source) as stream:
            digest = hashlib.file_digest(stream, "sha256")
        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        return cls(sha256=digest.hexdigest(), size_bytes=size_bytes, source=source)

    def read(self, chunks: Iterator[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of chunks.

        Raises:
            SourceChanged: the file ended early.
        """
        with _opened(self.source) as stream:
            for chunk in chunks:
                length = min(CHUNK_BYTES, self.size_bytes - chunk * CHUNK_BYTES)
                stream.seek(chunk * CHUNK_BYTES)
                data = stream.read(length)
                if len(data) != length:
                    raise _changed(self, f"{chunk * CHUNK_BYTES + len(data)} bytes")
                yield chunk, data


_lists: dict[tuple[Any, ...], list[str]] = {}
_lists_lock = threading.Lock()
_MOST_LISTS = 1024


def chunk_digests(content: Content) -> list[str]:
    """Return the SHA-256 of each chunk, from bytes that have the content's digest.

    Computed once for a content in this process: a fleet gets it many times. A file is read again when its
    time or its size differ from before.

    Raises:
        SourceChanged: the source does not have the digest that it is offered under.
    """
    key = _key(content)
    with _lists_lock:
        known = _lists.get(key)
    if known is not None:
        return known
    found = _digests(content)
    with _lists_lock:
        while len(_lists) >= _MOST_LISTS:
            del _lists[next(iter(_lists))]
        _lists[key] = found
    return found


def _digests(content: Content) -> list[str]:
    whole, found, size_bytes = hashlib.sha256(), [], 0
    try:
        with _opened(content.source) as stream:
            while data := stream.read(CHUNK_BYTES):
                whole.update(data)
                found.append(hashlib.sha256(data).hexdigest())
                size_bytes += len(data)
    except OSError as error:
        raise SourceChanged(str(content.source), f"cannot be read: {error.strerror}") from error
    if size_bytes != content.size_bytes:
        raise _changed(content, f"{size_bytes} bytes")
    if whole.hexdigest() != content.sha256:
        raise _changed(content, whole.hexdigest())
    return found


def _key(content: Content) -> tuple[Any, ...]:
    if isinstance(content.source, bytes):
        return (content.sha256, content.size_bytes)
    try:
        status = os.stat(content.source)
    except OSError as error:
        raise SourceChanged(str(content.source), f"cannot be read: {error.strerror}") from error
    return (
        content.sha256,
        content.size_bytes,
        content.source,
        status.st_mtime_ns,
        status.st_size,
        status.st_ino,
    )


def _changed(content: Content, got: str) -> SourceChanged:
    name = f"content {content.sha256[:12]}" if isinstance(content.source, bytes) else str(content.source)
    expected = f"{content.size_bytes} bytes" if got.endswith("bytes") else content.sha256
    return SourceChanged(name, "is not what it was when its digest was taken", expected=expected, got=got)


@contextmanager
def _opened(source: bytes | Path) -> Iterator[io.BytesIO | io.FileIO]:
    stream = io.BytesIO(source) if isinstance(source, bytes) else io.FileIO(source)
    with stream:
        yield stream
