"""A/B experiments: compare two releases by anytime-valid confidence intervals from telemetry windows."""

from __future__ import annotations

from edgeq.experiment.analyze import ExperimentResult, analyze
from edgeq.experiment.confidence_sequence import Interval
from edgeq.experiment.config import ExperimentConfig, ExperimentTerms, SplitBy
from edgeq.experiment.decision import Decision, objections
from edgeq.experiment.metrics import Metric
from edgeq.experiment.record import Experiment, ExperimentState
from edgeq.experiment.status import ExperimentStatus

__all__ = [
    "Decision",
    "Experiment",
    "ExperimentConfig",
    "ExperimentResult",
    "ExperimentState",
    "ExperimentStatus",
    "ExperimentTerms",
    "Interval",
    "Metric",
    "SplitBy",
    "analyze",
    "objections",
]
