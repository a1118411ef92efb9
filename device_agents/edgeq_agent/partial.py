"""Blobs that have not arrived whole: kept between tries, trusted only as far as their bytes are hashed again.

There is no list of what has arrived: such a list can say more than the disk holds after a power cut. What is
there is found by hashing the file's chunks against the offered list. Two uploads of one blob may write it at
the same time, since only verified chunks are written, and so both write the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from typing import Iterable, List, Tuple

from edgeq_agent import blobs, disk, files, lock
from edgeq_agent.errors import BUSY, DIGEST_MISMATCH, AgentError, no_space
from edgeq_agent.home import Home, free_bytes
from edgeq_agent.offer import Offer

# How many that nobody asks for are kept at most; they are small in number, the space is what counts.
MAX_IDLE = 32


class Partial:
    """One blob on its way; holds its file open, and marked as in use, until `close`."""

    def __init__(self, home: Home, offer: Offer) -> None:
        self.offer = offer
        self._home = home
        self._path = os.path.join(home.partials, offer.sha256)
        self._file = disk.update(self._path)
        fcntl.flock(self._file.descriptor, fcntl.LOCK_SH)
        self._digest = hashlib.sha256()
        self._hashed_chunks = 0

    def missing(self) -> list[int]:
        """Return the chunks that are not there with their content; hashes what is there."""
        disk.mark_used(self._path)
        if os.fstat(self._file.descriptor).st_size > self.offer.size_bytes:
            self._file.truncate(self.offer.size_bytes)
        absent = []
        for chunk, wanted in enumerate(self.offer.chunks):
            data = self._read(chunk)
            if hashlib.sha256(data).hexdigest() == wanted:
                self._follow(chunk, data)
            else:
                absent.append(chunk)
        return absent

    def take(self, chunk: int, data: bytes | bytearray) -> None:
        """Write one chunk where it belongs, once it is known to be that chunk.

        Raises:
            AgentError: EQ505, it is not.
        """
        got = hashlib.sha256(data).hexdigest()
        if got != self.offer.chunks[chunk]:
            raise AgentError(
                DIGEST_MISMATCH,
                f"blob {self.offer.sha256[:12]}, chunk {chunk}",
                "the bytes that arrived are not those that were announced",
                expected=self.offer.chunks[chunk],
                got=got,
                hint="did the file change meanwhile? send it again",
            )
        self._file.write_at(data, self.offer.start(chunk))
        self._follow(chunk, data)

    def finish(self) -> bool:
        """Make the whole file a blob; its name is not synced yet, see `disk.sync_folder`.

        Returns:
            False when another upload did so before.

        Raises:
            AgentError: EQ505, all chunks together are another blob; EQ508, it was taken away meanwhile.
        """
        while self._hashed_chunks < len(self.offer.chunks):
            self._follow(self._hashed_chunks, self._read(self._hashed_chunks))
        got = self._digest.hexdigest()
        if got != self.offer.sha256:
            self.discard()
            raise AgentError(
                DIGEST_MISMATCH,
                "blob " + self.offer.sha256[:12],
                "the list of chunks is another blob's",
                expected=self.offer.sha256,
                got=got,
                hint="did the file change meanwhile? send it again",
            )
        self._file.sync()
        with lock.hold(self._home):
            if self._is_ours():
                disk.replace(self._path, self._home.blob(self.offer.sha256))
                return True
        if blobs.has(self._home, self.offer.sha256, self.offer.size_bytes):
            return False
        raise AgentError(
            BUSY, "blob " + self.offer.sha256[:12], "was taken away while it arrived", transient=True
        )

    def discard(self) -> None:
        """Remove it."""
        files.remove(self._path)

    def close(self) -> None:
        """Leave it for the next try."""
        self._file.close()

    def _read(self, chunk: int) -> bytes:
        start, left = self.offer.start(chunk), self.offer.length(chunk)
        pieces = []
        while left:
            piece = os.pread(self._file.descriptor, left, start)
            if not piece:
                break
            pieces.append(piece)
            start, left = start + len(piece), left - len(piece)
        return b"".join(pieces)

    def _follow(self, chunk: int, data: bytes | bytearray) -> None:
        # The blob's own digest, as far as chunks come in order; `finish` reads what did not.
        if chunk == self._hashed_chunks:
            self._digest.update(data)
            self._hashed_chunks += 1

    def _is_ours(self) -> bool:
        # Another upload may have made this very file the blob, and a third may have begun a new one here.
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._file.descriptor))


def make_room(home: Home, needed_bytes: int, wanted: Iterable[str], subject: str) -> None:
    """Let `needed_bytes` fit: partials that nobody waits for go, those first that were not used for longest.

    Args:
        wanted: the digests of those that stay in any case.

    Raises:
        AgentError: EQ501, it does not fit even so.
    """
    kept = set(wanted)
    idle = [name for _, name in _by_age(home) if name not in kept]
    while idle and (len(idle) > MAX_IDLE or free_bytes(home.root) < needed_bytes + blobs.RESERVE_BYTES):
        _remove_unused(os.path.join(home.partials, idle.pop(0)))
    free = free_bytes(home.root)
    if free < needed_bytes + blobs.RESERVE_BYTES:
        raise no_space(subject, needed_bytes + blobs.RESERVE_BYTES, free)


def reclaimable_bytes(home: Home) -> int:
    """Return how much space partials take: an upload gives it back where it is needed, or continues them."""
    return sum(size_bytes for size_bytes, _ in _entries(home))


def ran_out(error: OSError) -> bool:
    """Tell whether a write failed for want of space; a partial must not be what fills the disk."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _by_age(home: Home) -> List[Tuple[float, str]]:
    found = []
    for name in os.listdir(home.partials):
        with suppress(FileNotFoundError):
            found.append((os.stat(os.path.join(home.partials, name)).st_mtime, name))
    return sorted(found)


def _entries(home: Home) -> List[Tuple[int, str]]:
    found = []
    for name in os.listdir(home.partials):
        with suppress(FileNotFoundError):
            found.append((os.stat(os.path.join(home.partials, name)).st_blocks * 512, name))
    return found


def _remove_unused(path: str) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.unlink(path)
        except BlockingIOError:
            return  # it is just arriving
        finally:
            os.close(descriptor)
