"""Details as JSON, and the gates that they fill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.blueprint import Limits, Slice, Task, parse_condition
from edgeq.evaluation import Details
from edgeq.evaluation.by_task import figures_of
from edgeq.evaluation.corruptions import Corruption
from edgeq.evaluation.edge_inputs import Edge, edge_figures
from edgeq.evaluation.robustness import figures_of as corrupted_figures
from edgeq.evaluation.robustness import summary
from edgeq.evaluation.slices import slice_figures
from edgeq.selection import Gate, gates_of
from edgeq.values import Metrics, Variant

LABELS = np.array([0, 0, 1, 1, 2, 2, 2, 2])
FLOAT = np.eye(3)[LABELS] * 0.8 + 0.2 / 3
INT8 = np.eye(3)[[0, 1, 1, 1, 2, 2, 2, 0]] * 0.8 + 0.2 / 3
NIGHT = Slice(
    name="night",
    where=parse_condition("night"),
    limits=Limits(accuracy_drop_max=0.02, accuracy_min=0.5, agreement_min=0.4),
)
VARIANT = Variant(
    name="int8",
    path=Path("int8.tflite"),
    sha256="0" * 64,
    size_bytes=100,
    metrics=Metrics(samples=8, accuracy=0.75),
)
LIMITS = Limits(class_drop_max=0.6, ece_max=0.1, robustness_drop_max=0.2)


def details_of(task: Task) -> Details:
    """Return details with the figures of a task, and with every part that does not depend on it."""
    labels = {
        Task.CLASSIFICATION: LABELS,
        Task.MULTI_LABEL: np.eye(3)[LABELS],
        Task.REGRESSION: np.eye(3)[LABELS],
        Task.ANOMALY: LABELS > 0,
        Task.SEGMENTATION: LABELS[:, None, None],
    }[task]
    outputs = {
        Task.ANOMALY: (FLOAT[:, :1], INT8[:, :1]),
        Task.SEGMENTATION: (FLOAT[:, None, None], INT8[:, None, None]),
    }.get(task, (FLOAT, INT8))
    figures = figures_of(task, *outputs, labels, inputs=FLOAT, subject="e.npz")
    right = FLOAT.argmax(axis=1) == LABELS, INT8.argmax(axis=1) == LABELS
    rows = np.arange(8) < 4
    one = corrupted_figures(Corruption.NOISE, 3, LABELS, INT8.argmax(axis=1), LABELS)
    clean = replace(one, corruption=None, severity=0)
    return Details(
        task=task,
        task_reason="stated",
        samples=8,
        independent=True,
        seed=0,
        classes=figures.classes,
        probabilities=figures.probabilities,
        multi_label=figures.multi_label,
        regression=figures.regression,
        anomaly=figures.anomaly,
        segmentation=figures.segmentation,
        slices=(slice_figures(NIGHT, rows, right=right, same=right[1]),),
        robustness=summary([clean, one], samples=8, severities=(3,), seed=0),
        edge_inputs=edge_figures([Edge.ZEROS], [FLOAT[:1]], [INT8[:1]], classes=True),
        notes=("a note",),
        warnings=("a warning",),
    )


@pytest.mark.parametrize("task", [each for each in Task if each is not Task.DETECTION])
def test_details_return_from_json_as_they_were(task: Task) -> None:
    details = details_of(task)
    document = json.loads(json.dumps(details.to_json(), allow_nan=False))
    assert document["task"] == task.value
    assert Details.from_json(document) == details


def test_json_of_another_version_is_refused() -> None:
    document = details_of(Task.CLASSIFICATION).to_json()
    with pytest.raises(ValueError, match="samples"):
        Details.from_json({**document, "samples": "many"})
    del document["task_reason"]
    with pytest.raises(ValueError, match="task_reason"):
        Details.from_json(document)


def gates(details: Details | None, limits: Limits = LIMITS) -> dict[tuple[str, str], Gate]:
    listed = gates_of(VARIANT, baseline=VARIANT.metrics, limits=limits, details=details, slices=[NIGHT])
    return {(gate.name, gate.subset): gate for gate in listed}


def test_without_details_the_gates_are_open() -> None:
    listed = gates(None)
    assert list(listed) == [
        ("class_drop_max", ""), ("ece_max", ""), ("robustness_drop_max", ""),
        ("accuracy_drop_max", "night"), ("accuracy_min", "night"), ("agreement_min", "night"),
    ]  # fmt: skip
    assert {(gate.holds, gate.value) for gate in listed.values()} == {(None, None)}
    assert listed["accuracy_min", "night"].text == "accuracy_min (night) 50.0 % not measured yet"


def test_details_fill_the_gates() -> None:
    details = details_of(Task.CLASSIFICATION)
    listed = gates(details)
    assert details.classes is not None
    assert details.probabilities is not None
    assert details.robustness is not None
    worst, ece = listed["class_drop_max", ""], listed["ece_max", ""]
    assert (worst.value, worst.holds, worst.ci95) == (0.5, True, details.classes.worst.drop_ci95)
    assert not worst.shown  # of two samples, one
    variant = details.probabilities.variant
    assert (ece.value, ece.ci95, ece.holds) == (variant.ece, variant.ece_ci95, False)
    robust = listed["robustness_drop_max", ""]
    assert (robust.value, robust.ci95, robust.holds) == (0.25, details.robustness.mean_drop_ci95, False)


def test_each_limit_of_a_slice_has_a_gate_that_names_the_slice() -> None:
    listed = gates(details_of(Task.CLASSIFICATION))
    drop = listed["accuracy_drop_max", "night"]
    assert (drop.value, drop.holds) == (0.25, False)
    assert drop.text == "accuracy_drop_max (night) 2.0 % FAILS"
    assert drop.miss == "accuracy_drop_max (night) 2.0 %, got 25.0 %"
    assert listed["accuracy_min", "night"].text == "accuracy_min (night) 50.0 % holds"
    assert listed["agreement_min", "night"].holds
    assert listed["agreement_min", "night"].ci95 is not None


def test_a_part_that_does_not_apply_leaves_its_gate_open() -> None:
    listed = gates(details_of(Task.REGRESSION))
    assert listed["class_drop_max", ""].holds is None
    assert listed["ece_max", ""].holds is None
    other = replace(details_of(Task.CLASSIFICATION), slices=())
    assert gates(other)["accuracy_min", "night"].holds is None
