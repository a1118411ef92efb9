"""Feedback tickets, with which an application reports later whether an answer was correct.

A ticket stands for one answer of one runtime. It is issued on request and redeemed once, with the verdict.
The number of open tickets is bounded: beyond that the oldest expires and is counted. Tickets do not outlive
the process; the counts go into the telemetry windows.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from edgeq_agent.sdk.call_metrics import CallMetrics
from edgeq_agent.sdk.errors import FeedbackRefused


class Tickets:
    """The answers of one runtime that wait for a verdict.

    Args:
        limit: how many may be open at the same time.
    """

    def __init__(self, limit: int) -> None:
        # So that a ticket of another process, or from before a restart, is recognized as foreign.
        self._prefix = os.urandom(6).hex()
        self._limit = limit
        self._last = 0
        self._open: OrderedDict[str, CallMetrics] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, metrics: CallMetrics) -> str:
        """Return a new ticket for an answer that is counted in `metrics`."""
        expired = None
        with self._lock:
            self._last += 1
            ticket = f"{self._prefix}-{self._last}"
            self._open[ticket] = metrics
            if len(self._open) > self._limit:
                _, expired = self._open.popitem(last=False)
        if expired is not None:
            expired.add_feedback(None)
        return ticket

    def redeem(self, ticket: object) -> CallMetrics:
        """Close a ticket and return the metrics that its answer is counted in.

        Raises:
            FeedbackRefused: EQ550, it is not open: redeemed already, expired, or not of this process.
        """
        with self._lock:
            metrics = self._open.pop(ticket, None) if isinstance(ticket, str) else None
            known = isinstance(ticket, str) and ticket.startswith(self._prefix + "-")
        if metrics is None:
            raise FeedbackRefused(
                "ticket " + repr(ticket)[:60],
                "was redeemed already, or has expired" if known else "was not issued by this process",
                hint=f"each answer takes one verdict; the last {self._limit} answers can wait for theirs",
            )
        return metrics
