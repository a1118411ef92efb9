"""Incomplete blobs: kept between uploads, so that an interrupted upload resumes.

No list records which chunks arrived: after a power cut such a list could claim more than the disk holds. The
chunks that are present are found by hashing the file, and the host compares.

A partial is called `<SHA-256 of the blob>.<owner>` and belongs to one upload at a time. A later upload takes
it over by renaming it, since the earlier one may be blocked on a dead connection. The earlier upload notices
at its next chunk; it then stops writing and waits for the blob.
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
from edgeq_agent.blobs.upload_frames import Offer
from edgeq_agent.errors import BUSY, AgentError, no_space
from edgeq_agent.storage import disk, files, lock
from edgeq_agent.storage.home import Home, free_bytes

# How many partials are kept that no upload asks for. They are few; `make_room` limits their size.
MAX_IDLE = 32
# How long an upload waits for the one that took over its partial.
WAIT_S, _POLL_S = 60.0, 0.1


class Partial:
    """One incomplete blob. Its file stays open, and is locked as in use, until `close`."""

    def __init__(self, home: Home, offer: Offer) -> None:
        self.offer = offer
        self._home = home
        self._lost = False
        # The blob's digest over its first chunks, as far as they are known without a gap.
        self._digest = hashlib.sha256()
        self._hashed_chunks = 0
        with _ownership_lock(home):
            existing = _largest(home, offer.sha256)
            self._path = os.path.join(home.partials, f"{offer.sha256}.{new_owner()}")
            if existing is not None:
                disk.replace(existing, self._path)
            self._file = disk.update(self._path)
            fcntl.flock(self._file.descriptor, fcntl.LOCK_SH)

    def chunk_digests(self) -> List[str]:
        """Return the SHA-256 of each chunk that the file has room for, whatever its content is."""
        disk.mark_used(self._path)
        present_bytes = os.fstat(self._file.descriptor).st_size
        if present_bytes > self.offer.size_bytes:
            present_bytes = self.offer.size_bytes
            self._file.truncate(present_bytes)
        digests = []
        for chunk in range(-(-present_bytes // self.offer.chunk_bytes)):
            data = self._read(chunk)
            digests.append(hashlib.sha256(data).hexdigest())
            self._extend_digest(chunk, data)
        return digests

    def write(self, chunk: int, data: bytes | bytearray) -> None:
        """Write one chunk at its offset, unless another upload owns the file now."""
        if self._lost:
            return
        with _ownership_lock(self._home):
            if not self._is_owned():
                self._release()
                return
            self._file.write_at(data, self.offer.start(chunk))
        if chunk < self._hashed_chunks:  # the chunk that was present was not this blob's
            self._digest, self._hashed_chunks = hashlib.sha256(), 0
        self._extend_digest(chunk, data)

    def finish(self) -> bool:
        """Turn the complete file into a blob; the blob's name is durable only after `disk.sync_folder`.

        Returns:
            False when another upload did so.

        Raises:
            AgentError: EQ505, the chunks together are another content; EQ508, another upload took the file
                over and did not finish.
        """
        if not self._lost:
            while self._hashed_chunks < self.offer.chunk_count:
                self._extend_digest(self._hashed_chunks, self._read(self._hashed_chunks))
            if self._digest.hexdigest() != self.offer.sha256:
                self.discard()
                raise blob_store.digest_mismatch(self.offer.sha256, self._digest.hexdigest())
            self._file.sync()
            with lock.hold(self._home), _ownership_lock(self._home):
                if self._is_owned():
                    blob_store.place(self._home, self._path, self.offer.sha256)
                    return True
            self._release()
        self._wait_for_blob()
        return False

    def discard(self) -> None:
        """Remove the file."""
        files.remove(self._path)

    def close(self) -> None:
        """Close the file and leave it for the next upload."""
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

    def _extend_digest(self, chunk: int, data: bytes | bytearray) -> None:
        if chunk == self._hashed_chunks:
            self._digest.update(data)
            self._hashed_chunks += 1

    def _is_owned(self) -> bool:
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._file.descriptor))

    def _release(self) -> None:
        self._lost = True
        # The lock shows whether the file's owner is alive, and this upload no longer owns it.
        fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)

    def _wait_for_blob(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while not blob_store.has(self._home, self.offer.sha256, self.offer.size_bytes):
            other = _largest(self._home, self.offer.sha256)
            if other is None or not _in_use(other) or time.monotonic() > deadline:
                if blob_store.has(self._home, self.offer.sha256, self.offer.size_bytes):
                    return  # it became a blob between the two checks
                raise AgentError(
                    BUSY,
                    "blob " + self.offer.sha256[:12],
                    "another upload took it over and did not finish it",
                    hint="run the same command again: complete chunks are kept and not sent again",
                    transient=True,
                )
            time.sleep(_POLL_S)


def begun(home: Home) -> Set[str]:
    """Return the SHA-256 of each blob that has a partial."""
    return {_sha256_of(name) for name in os.listdir(home.partials)}


def make_room(home: Home, needed_bytes: int, keep: Iterable[str], subject: str) -> None:
    """Remove idle partials until `needed_bytes` fit; the least recently used go first.

    Args:
        keep: the SHA-256 of the blobs whose partials stay in any case.

    Raises:
        AgentError: EQ501, it does not fit even then.
    """
    kept = set(keep)
    idle = [name for _, name in _by_age(home) if _sha256_of(name) not in kept]
    while idle and (len(idle) > MAX_IDLE or free_bytes(home.root) < needed_bytes + blob_store.RESERVE_BYTES):
        _remove_unused(os.path.join(home.partials, idle.pop(0)))
    available_bytes = free_bytes(home.root)
    if available_bytes < needed_bytes + blob_store.RESERVE_BYTES:
        raise no_space(subject, needed_bytes + blob_store.RESERVE_BYTES, available_bytes)


def reclaimable_bytes(home: Home) -> int:
    """Return the space that partials take; an upload resumes them or removes them when it needs the space."""
    return sum(status.st_blocks * 512 for _, status in _entries(home))


def is_out_of_space(error: OSError) -> bool:
    """Return whether a write failed for lack of space; a partial must not keep the disk full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _sha256_of(name: str) -> str:
    return name.partition(".")[0]


def new_owner() -> str:
    """Return a random suffix for the file of one upload."""
    return os.urandom(8).hex()


@contextmanager
def _ownership_lock(home: Home) -> Iterator[None]:
    # Held for one chunk or one rename, so that a file never changes its owner during a write.
    with disk.update(home.partials_lock) as lock_file:
        fcntl.flock(lock_file.descriptor, fcntl.LOCK_EX)
        yield


def _largest(home: Home, sha256: str) -> str | None:
    """Return the path of a blob's largest partial, or None."""
    partials = [(status.st_size, name) for name, status in _entries(home) if _sha256_of(name) == sha256]
    return os.path.join(home.partials, max(partials)[1]) if partials else None


def _by_age(home: Home) -> List[Tuple[float, str]]:
    return sorted((status.st_mtime, name) for name, status in _entries(home))


def _entries(home: Home) -> List[Tuple[str, os.stat_result]]:
    entries = []
    for name in os.listdir(home.partials):
        with suppress(FileNotFoundError):
            entries.append((name, os.stat(os.path.join(home.partials, name))))
    return entries


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
            return  # an upload is writing it
        finally:
            os.close(descriptor)
