"""A/B experiments: what windows of two releases say, in intervals that may be looked at at any time."""

from __future__ import annotations

from edgeq.experiment.decision import Decision, objections
from edgeq.experiment.judge import Judged, Metric, judge
from edgeq.experiment.means import Interval
from edgeq.experiment.record import Experiment, State
from edgeq.experiment.terms import By, Terms

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
