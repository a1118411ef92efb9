"""The collector: pull telemetry windows from devices into the store, each exactly once."""

from __future__ import annotations

from edgeq.collector.pull import Collected, WindowSource, collect

__all__ = ["Collected", "WindowSource", "collect"]
