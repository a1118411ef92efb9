"""The collector: pull telemetry windows from devices into the store, each exactly once."""

from __future__ import annotations

from edgeq.collector.pull import Collected, WindowSource, collect
from edgeq.collector.quarantine import Retried, drop_quarantined, retry_quarantined, select_quarantined

__all__ = [
    "Collected",
    "Retried",
    "WindowSource",
    "collect",
    "drop_quarantined",
    "retry_quarantined",
    "select_quarantined",
]
