"""Analyze the windows of an experiment: an anytime-valid interval and a conclusion for each metric."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.bundle.drift_reference import DriftReference
from edgeq.experiment import call_split, device_split
from edgeq.experiment.arm_counts import ArmCounts, ArmWindow, arm_windows, confidence_edges, total
from edgeq.experiment.config import ExperimentConfig, SplitBy
from edgeq.experiment.metrics import Conclusion, Metric, MetricKind
from edgeq.store import WindowRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """What the collected windows show of an experiment.

    Attributes:
        alpha: probability that any of the intervals is ever wrong, however often one looks.
        windows: windows of the arms.
        others: windows of no arm: merged from several arms, or of another release.
        data_sha256: digest of all windows of the experiment, in their order of arrival.
        arms: the counts of each arm.
        silent: devices without a window.
        keyed: calls whose arm was chosen by a key, in a split by calls.
    """

    metrics: tuple[Metric, ...]
    alpha: float
    windows: int
    others: int
    data_sha256: str
    arms: Mapping[str, ArmCounts]
    silent: tuple[str, ...]
    keyed: int

    def metric(self, kind: MetricKind) -> Metric:
        """Return one metric."""
        return next(metric for metric in self.metrics if metric.kind is kind)

    @property
    def worse(self) -> tuple[Metric, ...]:
        """The metrics that show B to be worse."""
        return tuple(metric for metric in self.metrics if metric.conclusion is Conclusion.WORSE)

    @property
    def summary(self) -> str:
        """The result in one line."""
        if all(metric.conclusion is Conclusion.NOTHING for metric in self.metrics):
            return "no conclusion yet"
        unknown = (Conclusion.NOTHING, Conclusion.SAME)
        shown = [metric for metric in self.metrics if metric.conclusion not in unknown]
        if not shown:
            return "no difference is shown"
        return "; ".join(f"B is {metric.conclusion.value} in {metric.kind.value}" for metric in shown)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as in `--json` and in the record of a decision."""
        return {
            "verdict": self.summary,
            "alpha": self.alpha,
            "windows": self.windows,
            "others": self.others,
            "data_sha256": self.data_sha256,
            "silent": list(self.silent),
            "keyed": self.keyed,
            "counted": {
                arm: {
                    "inferences": counts.attempts,
                    "errors": counts.failed,
                    "labelled": counts.labelled,
                    "correct": counts.correct,
                }
                for arm, counts in self.arms.items()
            },
            "metrics": [metric.to_dict() for metric in self.metrics],
        }


def analyze(
    config: ExperimentConfig,
    records: Sequence[WindowRecord],
    references: Mapping[str, DriftReference | None],
) -> ExperimentResult:
    """Return what the windows of an experiment show.

    Args:
        records: windows of the experiment, in their order of arrival.
        references: release -> drift reference, for the edges of the confidence bins.
    """
    edges = {release: confidence_edges(reference) for release, reference in references.items()}
    windows, others = arm_windows(records, config.releases, edges)
    windows = [window for window in windows if window.device in config.arms]
    arms = {arm: total(window.counts for window in windows if window.arm == arm) for arm in ("a", "b")}
    # Bonferroni: with a share of alpha for each metric, the probability that any is ever wrong is at most
    # alpha.
    alpha = config.alpha / len(MetricKind)
    metrics = (
        call_split.metrics(windows, arms, alpha=alpha)
        if config.by is SplitBy.CALLS
        else device_split.metrics(
            _of_assigned_arm(windows, config), arms, devices=len(config.devices), alpha=alpha
        )
    )
    return ExperimentResult(
        metrics=metrics,
        alpha=config.alpha,
        windows=len(windows),
        others=others,
        data_sha256=_digest(records),
        arms=arms,
        silent=tuple(sorted(set(config.devices) - {window.device for window in windows})),
        keyed=arms["a"].keyed + arms["b"].keyed if config.by is SplitBy.CALLS else 0,
    )


def _of_assigned_arm(windows: Sequence[ArmWindow], config: ExperimentConfig) -> list[ArmWindow]:
    return [window for window in windows if config.arms[window.device] == window.arm]


def _digest(records: Sequence[WindowRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(bytes.fromhex(record.sha256))
    return digest.hexdigest()
