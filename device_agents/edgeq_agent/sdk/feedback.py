"""Tickets: how an application says later whether an answer was right, once for each answer.

A ticket stands for one answer of one runtime; it is given out on demand and taken back with the verdict. The
number that are open is bounded: with more, the oldest is dropped and counted as expired. They do not outlive
the process; the counts of what was right go into the telemetry windows.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from edgeq_agent.sdk.errors import FeedbackRefused

if TYPE_CHECKING:
    from edgeq_agent.sdk.call_metrics import CallMetrics


class Tickets:
    """The answers of one runtime that wait for a verdict.

    Args:
        most: that are open at the same time.
    """

    def __init__(self, most: int) -> None:
        # So that a ticket of another process, or of before a restart, is never taken for one of ours.
        self._mark = os.urandom(6).hex()
        self._most = most
        self._last = 0
        self._open: OrderedDict[str, CallMetrics] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, metrics: CallMetrics) -> str:
        """Return a new ticket for an answer that is counted in `metrics`."""
        dropped = None
        with self._lock:
            self._last += 1
            ticket = f"{self._mark}-{self._last}"
            self._open[ticket] = metrics
            if len(self._open) > self._most:
                _, dropped = self._open.popitem(last=False)
        if dropped is not None:
            dropped.add_feedback(None)
        return ticket

    def redeem(self, ticket: object) -> CallMetrics:
        """Return whose answer a ticket stands for, and take the ticket back.

        Raises:
            FeedbackRefused: EQ550, it is not open: used already, dropped, or not of this process.
        """
        with self._lock:
            metrics = self._open.pop(ticket, None) if isinstance(ticket, str) else None
            known = isinstance(ticket, str) and ticket.startswith(self._mark + "-")
        if metrics is None:
            why = "was told already, or is too old" if known else "is none of this process"
            raise FeedbackRefused(
                "ticket " + repr(ticket)[:60], why,
                hint=f"each answer takes one verdict; the last {self._most} can wait for theirs",
            )  # fmt: skip
        return metrics
