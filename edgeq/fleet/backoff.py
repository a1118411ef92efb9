"""Retry transient transport errors with bounded exponential backoff and jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeq.errors import EdgeqError, TransportError
from edgeq.fleet.clock import Clock, SystemClock

T = TypeVar("T")
OnRetry = Callable[[EdgeqError, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often to try, and how long to wait between attempts.

    Attributes:
        tries: the maximum number of attempts, including the first.
        first_s: the wait after the first failure; it doubles each time. Half of it is jitter.
        most_s: the longest wait.
        total_s: no attempt starts later than this after the first one.
    """

    tries: int = 6
    first_s: float = 1.0
    most_s: float = 30.0
    total_s: float = 120.0

    def wait_s(self, failures: int, jitter: float) -> float:
        """Return the wait after a number of failures; `jitter` is from 0 to 1."""
        full_s = min(self.most_s, self.first_s * 2.0 ** (failures - 1))
        return full_s * (0.5 + 0.5 * jitter)


ONCE = Backoff(tries=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a call is retried when the connection fails.

    Attributes:
        backoff: how often, and how long to wait.
        on_retry: called with the failure and the seconds until the next attempt.
    """

    backoff: Backoff = ONCE
    on_retry: OnRetry | None = None


NO_RETRY = RetryPolicy()


def is_transient(error: EdgeqError) -> bool:
    """Return whether an error is a connection failure that may pass.

    A refused login and a changed host key are not: servers ban hosts that repeat a failing login.
    """
    return isinstance(error, TransportError) and error.transient


def retrying(
    action: Callable[[], T],
    policy: RetryPolicy,
    *,
    clock: Clock | None = None,
    jitter: Callable[[], float] = random.random,
) -> T:
    """Return the result of an action, retrying it while its errors are transient.

    Args:
        jitter: returns a number from 0 to 1; random, so that the devices of a fleet do not retry in step.

    Raises:
        EdgeqError: the error of the last attempt.
    """
    clock, backoff = clock or SystemClock(), policy.backoff
    until_s = clock.now_s() + backoff.total_s
    for failures in range(1, backoff.tries):
        try:
            return action()
        except EdgeqError as error:
            wait_s = backoff.wait_s(failures, jitter())
            if not is_transient(error) or clock.now_s() + wait_s > until_s:
                raise
            if policy.on_retry is not None:
                policy.on_retry(error, wait_s)
        clock.sleep(wait_s)
    return action()
