"""The lock of a home: verbs that change something run one at a time."""

from __future__ import annotations

import fcntl
import time
from contextlib import contextmanager
from typing import Iterator

from edgeq_agent.errors import BUSY, AgentError
from edgeq_agent.storage import disk
from edgeq_agent.storage.home import Home

WAIT_S = 10.0
_POLL_S = 0.05


@contextmanager
def hold(home: Home, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the home's lock. The kernel releases it when the process dies, so a lock is never stale.

    Raises:
        AgentError: EQ508 (transient), another call held the lock for the whole wait.
    """
    # The model's process does not inherit the descriptor (PEP 446), so an orphan cannot keep the lock.
    with disk.update(home.lock) as lock_file:
        _acquire(lock_file.descriptor, wait_s)
        try:
            yield
        finally:
            # Not by closing alone: a process that was forked meanwhile has the descriptor, too.
            fcntl.flock(lock_file.descriptor, fcntl.LOCK_UN)


def _acquire(descriptor: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise AgentError(
                    BUSY,
                    "the device",
                    f"another call held the device's lock for {wait_s:g} s",
                    hint="try again in a moment",
                    transient=True,
                ) from None
        time.sleep(_POLL_S)
