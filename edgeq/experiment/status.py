"""Status of an experiment: its record, the results of its windows, and the objections to each decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.drift_reference import stored_reference
from edgeq.experiment import record
from edgeq.experiment.analyze import ExperimentResult, analyze
from edgeq.experiment.decision import Decision, objections
from edgeq.experiment.record import Experiment
from edgeq.store import Store, recording_store


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentStatus:
    """An experiment, and what its collected windows show so far.

    Attributes:
        objections: to each decision; a decision without any is justified.
    """

    experiment: Experiment
    result: ExperimentResult
    objections: Mapping[Decision, tuple[str, ...]]

    @property
    def justified(self) -> tuple[Decision, ...]:
        """The decisions that the data justify."""
        return tuple(decision for decision, reasons in self.objections.items() if not reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the status as in `--json`."""
        return {
            **self.experiment.to_dict(),
            **self.result.to_dict(),
            "objections": {decision.value: list(reasons) for decision, reasons in self.objections.items()},
        }


def experiment_status(
    experiment: str | None = None, *, workspace: Path, store: Store | None = None
) -> ExperimentStatus:
    """Return the status of an experiment from the records in the store; no device is contacted.

    Args:
        experiment: its name; None for the only one that is not finished.
        store: holds the records; the workspace's store by default.

    Raises:
        ExperimentError: EQ831, there is no such experiment, or several could be meant; EQ838, its record
            cannot be read.
        StoreError: the store cannot be opened.
    """
    with recording_store(store, workspace) as opened:
        recorded = record.find(opened, experiment)
        result = result_of(opened, recorded)
    return ExperimentStatus(
        experiment=recorded,
        result=result,
        objections={decision: objections(recorded.config, result, decision) for decision in Decision},
    )


def result_of(store: Store, experiment: Experiment) -> ExperimentResult:
    """Return the results of an experiment from the windows in the store."""
    config = experiment.config
    windows = store.windows(model=config.model, experiment=config.experiment)
    store.set_aside_invalid()
    references = {release: stored_reference(store, release) for release in config.releases.values()}
    return analyze(config, windows, references)
