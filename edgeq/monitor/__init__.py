"""The monitor: sequential drift tests over collected windows with a stated false-alarm rate."""

from __future__ import annotations

from edgeq.monitor.field import FieldSummary, field_summaries
from edgeq.monitor.streams import Stream, judge_store
from edgeq.monitor.verdict import DriftVerdict, SignalVerdict, judge

__all__ = [
    "DriftVerdict",
    "FieldSummary",
    "SignalVerdict",
    "Stream",
    "field_summaries",
    "judge",
    "judge_store",
]
