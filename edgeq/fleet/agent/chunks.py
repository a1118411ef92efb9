"""Contents in chunks: what an upload offers and sends."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.errors import SourceChanged

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that a device shall have.

    Attributes:
        sha256: what they are called there; the device refuses what has another digest.
        source: the bytes, or the file that holds them.
    """

    sha256: str
    size_bytes: int
    source: bytes | Path = field(repr=False)

    @classmethod
    def of(cls, source: bytes | Path) -> Content:
        """Return a content under the digest that it has now."""
        stream = io.BytesIO(source) if isinstance(source, bytes) else io.FileIO(source)
        with stream:
            digest = hashlib.file_digest(stream, "sha256")
        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        return cls(sha256=digest.hexdigest(), size_bytes=size_bytes, source=source)

    @property
    def chunk_count(self) -> int:
        """How many chunks there are."""
        return -(-self.size_bytes // CHUNK_BYTES)

    def read(self) -> Iterator[bytes]:
        """Yield the chunks.

        Raises:
            SourceChanged: the file cannot be read, or has another size.
        """
        if isinstance(self.source, bytes):
            for start in range(0, self.size_bytes, CHUNK_BYTES):
                yield self.source[start : start + CHUNK_BYTES]
            return
        there_bytes = 0
        try:
            self._check_size(self.source.stat().st_size)
            with self.source.open("rb", buffering=0) as stream:
                while there_bytes < self.size_bytes:
                    length = min(CHUNK_BYTES, self.size_bytes - there_bytes)
                    data = stream.read(length)
                    there_bytes += len(data)
                    if len(data) != length:
                        break
                    yield data
        except OSError as error:
            raise SourceChanged(str(self.source), f"cannot be read: {error.strerror}") from error
        self._check_size(there_bytes)

    def _check_size(self, got_bytes: int) -> None:
        if got_bytes != self.size_bytes:
            raise SourceChanged(
                str(self.source),
                "is not what it was when its digest was taken",
                expected=f"{self.size_bytes} bytes",
                got=f"{got_bytes} bytes",
            )
