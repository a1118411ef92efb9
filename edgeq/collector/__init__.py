"""The collector: telemetry windows from devices into the store, exactly once."""

from __future__ import annotations

from edgeq.collector.pull import AgentCall, Collected, collect

__all__ = ["AgentCall", "Collected", "collect"]
