"""A/B experiments: what windows of two releases say, in intervals that may be looked at at any time."""

from __future__ import annotations

from edgeq.experiment.analyze import Judged, Metric, judge
from edgeq.experiment.confidence_sequence import Interval
from edgeq.experiment.config import By, Terms
from edgeq.experiment.decision import Decision, objections
from edgeq.experiment.record import Experiment, State

__all__ = [
    "By",
    "Decision",
    "Experiment",
    "Interval",
    "Judged",
    "Metric",
    "State",
    "Terms",
    "judge",
    "objections",
]
