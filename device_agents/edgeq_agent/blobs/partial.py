"""Blobs that have not arrived whole: kept between tries, owned by one upload at a time.

There is no list of what has arrived: such a list can say more than the disk holds after a power cut. What is
there is found by hashing the file's chunks; the host compares. A partial is called after its blob and its
owner. Whoever comes later takes it over by renaming it, since the upload before may hang on a link that is
dead already; that one notices at its next chunk, and then waits for the blob instead of writing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import contextmanager, suppress
from typing import Iterable, Iterator, List, Set, Tuple

from edgeq_agent.blobs import blob_store
from edgeq_agent.blobs.offer import Offer
from edgeq_agent.errors import BUSY, DIGEST_MISMATCH, AgentError, no_space
from edgeq_agent.storage import disk, files, lock
from edgeq_agent.storage.home import Home, free_bytes

# How many that nobody asks for are kept at most; they are small in number, the space is what counts.
MAX_IDLE = 32
# How long an upload waits for the one that took its partial over, and how often it looks.
_WAIT_S, _POLL_S = 60.0, 0.1


class Partial:
    """One blob on its way; holds its file open, and marked as in use, until `close`."""

    def __init__(self, home: Home, offer: Offer) -> None:
        self.offer = offer
        self._home = home
        self._lost = False
        # The blob's own digest as far as its first chunks are known: received in order, or found here.
        self._digest = hashlib.sha256()
        self._hashed_chunks = 0
        with _changing(home):
            there = _of(home, offer.sha256)
            self._path = os.path.join(home.partials, f"{offer.sha256}.{_owner()}")
            if there is not None:
                disk.replace(there, self._path)
            self._file = disk.update(self._path)
            fcntl.flock(self._file.descriptor, fcntl.LOCK_SH)

    def held(self) -> List[str]:
        """Return the SHA-256 of each chunk that the file has room for, whatever is in it."""
        disk.mark_used(self._path)
        there_bytes = os.fstat(self._file.descriptor).st_size
        if there_bytes > self.offer.size_bytes:
            there_bytes = self.offer.size_bytes
            self._file.truncate(there_bytes)
        found = []
        for chunk in range(-(-there_bytes // self.offer.chunk_bytes)):
            data = self._read(chunk)
            found.append(hashlib.sha256(data).hexdigest())
            self._follow(chunk, data)
        return found

    def take(self, chunk: int, data: bytes | bytearray) -> None:
        """Write one chunk where it belongs, unless another upload owns the file by now."""
        if self._lost:
            return
        with _changing(self._home):
            if not self._is_ours():
                self._lose()
                return
            self._file.write_at(data, self.offer.start(chunk))
        if chunk < self._hashed_chunks:  # what was found here was not this blob's
            self._digest, self._hashed_chunks = hashlib.sha256(), 0
        self._follow(chunk, data)

    def finish(self) -> bool:
        """Make the whole file a blob; its name is not synced yet, see `disk.sync_folder`.

        Returns:
            False when another upload did so.

        Raises:
            AgentError: EQ505, all chunks together are another blob; EQ508, another upload took it over, and
                did not bring it to its end.
        """
        if not self._lost:
            while self._hashed_chunks < self.offer.chunk_count:
                self._follow(self._hashed_chunks, self._read(self._hashed_chunks))
            if self._digest.hexdigest() != self.offer.sha256:
                self.discard()
                raise self._mismatch()
            self._file.sync()
            with lock.hold(self._home), _changing(self._home):
                if self._is_ours():
                    disk.replace(self._path, self._home.blob(self.offer.sha256))
                    return True
            self._lose()
        self._await_other()
        return False

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
        if chunk == self._hashed_chunks:
            self._digest.update(data)
            self._hashed_chunks += 1

    def _is_ours(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._file.descriptor))

    def _lose(self) -> None:
        self._lost = True
        # The file is the other's now: that one alone tells by its lock whether it is alive.
        fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)

    def _await_other(self) -> None:
        end_s = time.monotonic() + _WAIT_S
        while not blob_store.has(self._home, self.offer.sha256, self.offer.size_bytes):
            there = _of(self._home, self.offer.sha256)
            if there is None or not _in_use(there) or time.monotonic() > end_s:
                if blob_store.has(self._home, self.offer.sha256, self.offer.size_bytes):
                    return  # it became the blob between the two looks
                raise AgentError(
                    BUSY,
                    "blob " + self.offer.sha256[:12],
                    "another upload took it over and did not end it",
                    hint="run the same command again: what arrived whole is kept and not sent twice",
                    transient=True,
                )
            time.sleep(_POLL_S)

    def _mismatch(self) -> AgentError:
        return AgentError(
            DIGEST_MISMATCH,
            "blob " + self.offer.sha256[:12],
            "the bytes that arrived are not those that were announced",
            expected=self.offer.sha256,
            got=self._digest.hexdigest(),
            hint="did the file change meanwhile? send it again",
        )


def begun(home: Home) -> Set[str]:
    """Return the digests of the blobs of which a part is here."""
    return {name.partition(".")[0] for name in os.listdir(home.partials)}


def make_room(home: Home, needed_bytes: int, wanted: Iterable[str], subject: str) -> None:
    """Let `needed_bytes` fit: partials that nobody waits for go, those first that were not used for longest.

    Args:
        wanted: the digests of those that stay in any case.

    Raises:
        AgentError: EQ501, it does not fit even so.
    """
    kept = set(wanted)
    idle = [name for _, name in _by_age(home) if name.partition(".")[0] not in kept]
    while idle and (len(idle) > MAX_IDLE or free_bytes(home.root) < needed_bytes + blob_store.RESERVE_BYTES):
        _remove_unused(os.path.join(home.partials, idle.pop(0)))
    free = free_bytes(home.root)
    if free < needed_bytes + blob_store.RESERVE_BYTES:
        raise no_space(subject, needed_bytes + blob_store.RESERVE_BYTES, free)


def reclaimable_bytes(home: Home) -> int:
    """Return how much space partials take: an upload gives it back where it is needed, or continues them."""
    return sum(status.st_blocks * 512 for _, status in _entries(home))


def ran_out(error: OSError) -> bool:
    """Tell whether a write failed for want of space; a partial must not be what fills the disk."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _owner() -> str:
    return os.urandom(8).hex()


@contextmanager
def _changing(home: Home) -> Iterator[None]:
    # Held for one chunk or one rename: nobody writes into a file that changes hands.
    with disk.update(home.partials_lock) as held:
        fcntl.flock(held.descriptor, fcntl.LOCK_EX)
        yield


def _of(home: Home, sha256: str) -> str | None:
    """Return the largest partial of a blob, or None."""
    found = [(status.st_size, name) for name, status in _entries(home) if name.partition(".")[0] == sha256]
    return os.path.join(home.partials, max(found)[1]) if found else None


def _by_age(home: Home) -> List[Tuple[float, str]]:
    return sorted((status.st_mtime, name) for name, status in _entries(home))


def _entries(home: Home) -> List[Tuple[str, os.stat_result]]:
    found = []
    for name in os.listdir(home.partials):
        with suppress(FileNotFoundError):
            found.append((name, os.stat(os.path.join(home.partials, name))))
    return found


def _in_use(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


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
