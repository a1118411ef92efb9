"""The monitor: sequential drift tests over collected windows, with a stated false-alarm rate."""

from __future__ import annotations

from edgeq.monitor.sketch import LatencySketch, merge_latency
from edgeq.monitor.streams import Judged, judge_store
from edgeq.monitor.verdict import SignalVerdict, Verdict, judge

__all__ = ["Judged", "LatencySketch", "SignalVerdict", "Verdict", "judge", "judge_store", "merge_latency"]
