"""One lock a home: verbs that change something run one after another."""

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
    """Hold the home's lock; the kernel frees it when the process dies, so there are no stale locks.

    Raises:
        AgentError: EQ508 (transient), another call held it for the whole wait.
    """
    # Not inherited by the model's process (PEP 446): an orphan can never keep the lock.
    with disk.update(home.lock) as held:
        _take(held.descriptor, wait_s)
        yield


def _take(descriptor: int, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise AgentError(
                    BUSY,
                    "the device",
                    f"busy with another call for {wait_s:g} s",
                    hint="try again in a moment",
                    transient=True,
                ) from None
        time.sleep(_POLL_S)
