"""Trying again: only after what may pass by itself, each time later, with chance in it, and not for ever."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgeq.errors import EdgeqError, TransportError

T = TypeVar("T")
OnRetry = Callable[[EdgeqError, float], None]


class Clock(Protocol):
    """Time and chance, so that tests need neither."""

    def now_s(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...
    def chance(self) -> float: ...


class SystemClock:
    """The real ones."""

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def chance(self) -> float:
        """Return a number from 0 to 1; a fleet must not come back in step."""
        return random.random()  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How to try again.

    Attributes:
        tries: the most, the first included.
        first_s: the wait after the first failure; it doubles each time. Half of it is by chance.
        most_s: no wait is longer.
        total_s: no new try begins later than this after the first one.
    """

    tries: int = 6
    first_s: float = 1.0
    most_s: float = 30.0
    total_s: float = 120.0

    def wait_s(self, failures: int, chance: float) -> float:
        """Return the wait after so many failures."""
        full_s = min(self.most_s, self.first_s * 2.0 ** (failures - 1))
        return full_s * (0.5 + 0.5 * chance)


ONCE = Backoff(tries=1)
USUAL = Backoff()
_SYSTEM = SystemClock()


def may_pass(error: EdgeqError) -> bool:
    """Tell whether a failure is one of the way to the device, and may be over by itself.

    A refused login and a changed host key are not: repeating a login that fails gets this machine banned.
    """
    return isinstance(error, TransportError) and error.transient


def retrying(
    action: Callable[[], T], backoff: Backoff, *, clock: Clock = _SYSTEM, on_retry: OnRetry | None = None
) -> T:
    """Return what an action gives, beginning again while its failures may pass.

    Raises:
        EdgeqError: the last failure.
    """
    until_s = clock.now_s() + backoff.total_s
    for failures in range(1, backoff.tries):
        try:
            return action()
        except EdgeqError as error:
            wait_s = backoff.wait_s(failures, clock.chance())
            if not may_pass(error) or clock.now_s() + wait_s > until_s:
                raise
            if on_retry is not None:
                on_retry(error, wait_s)
        clock.sleep(wait_s)
    return action()
