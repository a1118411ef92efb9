"""The parts of a run's page on one candidate beside its float model, from the details of an evaluation."""

from __future__ import annotations

from edgeq.evaluation import Details
from edgeq.pipeline.details.classes import classes_section
from edgeq.pipeline.details.inputs import edge_inputs_section, robustness_section, slices_section
from edgeq.pipeline.details.probabilities import probabilities_section
from edgeq.pipeline.details.tasks import (
    anomaly_section,
    multi_label_section,
    regression_section,
    segmentation_section,
)
from edgeq.pipeline.sections import Section

__all__ = ["details_sections"]


def details_sections(details: Details, name: str) -> tuple[Section, ...]:
    """Return a section for each part that the details have, in the order of the page.

    Args:
        name: of the candidate that was examined.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    optional = (
        classes_section(details.classes, name),
        probabilities_section(details.probabilities, name),
        multi_label_section(details.multi_label, name),
        regression_section(details.regression, name),
        anomaly_section(details.anomaly, name),
        segmentation_section(details.segmentation, name),
        slices_section(details.slices, name),
        robustness_section(details.robustness, name),
        edge_inputs_section(details.edge_inputs, name),
        _remarks_section(details),
    )
    return tuple(section for section in optional if section is not None)


def _remarks_section(details: Details) -> Section | None:
    task = "" if details.task is None else f"Task: {details.task.value}; {details.task_reason}."
    sentences = [task, *details.warnings, *details.notes]
    if not details.independent:
        sentences.append("Samples of one sequence depend on each other: there are no intervals.")
    kept = tuple(each for each in sentences if each)
    return Section(id="remarks", title="Remarks on the evaluation", sentences=kept) if kept else None
