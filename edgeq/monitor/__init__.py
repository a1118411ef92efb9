"""The monitor: sequential drift tests over collected windows with a stated false-alarm rate."""

from __future__ import annotations

from edgeq.monitor.field import FieldSummary, field_summaries
from edgeq.monitor.streams import TelemetryStream, judge_store
from edgeq.monitor.verdict import DriftVerdict, SignalVerdict, judge

__all__ = [
    "DriftVerdict",
    "FieldSummary",
    "SignalVerdict",
    "TelemetryStream",
    "field_summaries",
    "judge",
    "judge_store",
]
