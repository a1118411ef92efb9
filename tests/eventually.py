"""Wait for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 150.0
"""Far longer than anything takes: a busy machine may stop a process, or hold a sync, for half a minute."""


def until(check: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    """Call `check` until it returns something true, and return that; fail after `within_s` seconds."""
    end = time.monotonic() + within_s
    while not (value := check()):
        assert time.monotonic() < end, (
            f"did not come true within {within_s:.0f} s; the last value was {value!r}"
        )
        time.sleep(0.01)
    return value
