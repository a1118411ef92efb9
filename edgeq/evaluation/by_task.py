"""The figures that fit a task: check outputs and labels against it, then compute them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Task
from edgeq.errors import DataError, UsageError
from edgeq.evaluation.anomaly import Anomaly, anomaly_of, reconstruction_error
from edgeq.evaluation.classes import Classes, classes_of
from edgeq.evaluation.multi_label import MultiLabel, multi_label_of
from edgeq.evaluation.probabilities import Probabilities, probabilities_of
from edgeq.evaluation.regression import Regression, regression_of
from edgeq.evaluation.segmentation import IGNORED, Segmentation, classes_at_places, segmentation_of

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]
_DETECTION = "no figures of a detector: without details, the boxes and scores of both models are compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """The figures of one task; the other parts are None."""

    classes: Classes | None = None
    probabilities: Probabilities | None = None
    multi_label: MultiLabel | None = None
    regression: Regression | None = None
    anomaly: Anomaly | None = None
    segmentation: Segmentation | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Outputs of (float model, variant) and what they are compared with."""

    reference: Real
    variant: Real
    labels: Array
    inputs: Array
    names: Sequence[str]
    step: float | None
    independent: bool
    seed: int
    subject: str


def figures_of(
    task: Task | None,
    reference: Real,
    variant: Real,
    labels: Array | None,
    *,
    inputs: Array,
    names: Sequence[str] = (),
    step: float | None = None,
    independent: bool = True,
    seed: int = 0,
    subject: str = "data",
) -> TaskFigures:
    """Return the figures of two models' first outputs that fit a task. A pure function.

    Args:
        reference, variant: real values, samples first.
        labels: `y`, samples first; of a classifier checked already. None without labels.
        inputs: of the float model, samples first: what a reconstruction is compared with.
        names: of the classes or labels; none for their indices.
        step: the real value of one step of the variant's output; None for a float output.
        independent: whether the samples are independent of each other; there are no intervals otherwise.
        seed: of the bootstrap.
        subject: the data, for messages.

    Raises:
        DataError: EQ206, EQ207, EQ208 the labels do not fit the task.
        UsageError: EQ101 the number of names is not that of the classes.
    """
    if task is None:
        return TaskFigures()
    if task is Task.DETECTION:
        return TaskFigures(notes=(_DETECTION,))
    if labels is None:
        return TaskFigures(notes=(f"no figures of {task}: the data has no `y`",))
    compared = _Compared(
        reference=reference,
        variant=variant,
        labels=labels,
        inputs=inputs,
        names=names,
        step=step,
        independent=independent,
        seed=seed,
        subject=subject,
    )
    if task is Task.CLASSIFICATION:
        return _classification(compared)
    if not (np.isfinite(reference).all() and np.isfinite(variant).all()):
        which = "variant" if np.isfinite(reference).all() else "float model"
        return TaskFigures(
            warnings=(f"no figures of {task}: the output of the {which} holds NaN or infinity",)
        )
    return _FIGURES[task](compared)


def _classification(compared: _Compared) -> TaskFigures:
    reference, variant = _flat(compared.reference), _flat(compared.variant)
    _check_names(compared, reference.shape[1], "class")
    probabilities = probabilities_of(
        reference,
        variant,
        compared.labels,
        step=compared.step,
        independent=compared.independent,
        seed=compared.seed,
    )
    return TaskFigures(
        classes=classes_of(
            reference, variant, compared.labels, names=compared.names, independent=compared.independent
        ),
        probabilities=probabilities,
        warnings=()
        if probabilities is not None
        else ("no figures of probabilities: an output holds NaN or infinity",),
    )


def _multi_label(compared: _Compared) -> TaskFigures:
    labels = _binary(compared, _of_output(compared, compared.reference))
    _check_names(compared, labels.shape[1], "label")
    return TaskFigures(
        multi_label=multi_label_of(
            _flat(compared.reference),
            _flat(compared.variant),
            labels,
            names=compared.names,
            independent=compared.independent,
            seed=compared.seed,
        )
    )


def _regression(compared: _Compared) -> TaskFigures:
    labels = _of_output(compared, compared.reference).astype(np.float64)
    return TaskFigures(
        regression=regression_of(
            _flat(compared.reference),
            _flat(compared.variant),
            labels,
            independent=compared.independent,
            seed=compared.seed,
        )
    )


def _anomaly(compared: _Compared) -> TaskFigures:
    scores = [compared.reference, compared.variant]
    score = "the output"
    if _flat(compared.reference).shape[1] > 1:
        if _flat(compared.reference).shape != _flat(compared.inputs).shape:
            raise DataError(
                compared.subject,
                "the task anomaly",
                expected="an output of one number, or of the shape of the input",
                got=f"{compared.reference.shape[1:]} for an input of {compared.inputs.shape[1:]}",
                hint="state another task",
                code="EQ206",
            )
        score = "mean squared error of the reconstruction"
        scores = [reconstruction_error(each, compared.inputs) for each in scores]
    labels = _binary(compared, _of_output(compared, scores[0]))[:, 0]
    if len(np.unique(labels)) < 2:
        return TaskFigures(notes=(f"no figures of anomaly: every `y` is {labels[0]:g}",))
    return TaskFigures(
        anomaly=anomaly_of(
            scores[0].reshape(-1),
            scores[1].reshape(-1),
            labels,
            score=score,
            independent=compared.independent,
            seed=compared.seed,
        )
    )


def _segmentation(compared: _Compared) -> TaskFigures:
    reference, variant = compared.reference, compared.variant
    if compared.labels.shape == reference.shape:  # one value at each place: a mask
        reference, variant = reference[..., None], variant[..., None]
    if reference.ndim < 3:
        raise DataError(
            compared.subject,
            "the task segmentation",
            expected="an output of shape (height, width, classes)",
            got=str(reference.shape[1:]),
            hint="state another task",
            code="EQ206",
        )
    answers = [classes_at_places(each, reference) for each in (reference, variant)]
    classes = max(reference.shape[-1], 2)
    _check_names(compared, classes, "class")
    labels = _whole(compared, _of_output(compared, answers[0]).reshape(answers[0].shape))
    inside = (labels >= 0) & (labels < classes)
    ignored = (labels == IGNORED) & (classes <= IGNORED)
    if not (inside | ignored).all():
        wrong = labels[~(inside | ignored)]
        raise DataError(
            compared.subject,
            expected=f"labels from 0 to {classes - 1}, or {IGNORED} for pixels that do not count",
            got=f"{wrong[0]:g} ({wrong.size} such labels)",
            code="EQ208",
        )
    if not inside.any():
        return TaskFigures(notes=(f"no figures of segmentation: every `y` is {IGNORED}",))
    return TaskFigures(
        segmentation=segmentation_of(
            answers[0],
            answers[1],
            labels,
            classes=classes,
            names=compared.names,
            independent=compared.independent,
            seed=compared.seed,
        )
    )


_FIGURES: Mapping[Task, Callable[[_Compared], TaskFigures]] = {
    Task.MULTI_LABEL: _multi_label,
    Task.REGRESSION: _regression,
    Task.ANOMALY: _anomaly,
    Task.SEGMENTATION: _segmentation,
}


def _of_output(compared: _Compared, output: Array) -> Array:
    """Return the labels as one row a sample, which has as many values as the output.

    Raises:
        DataError: EQ206 they have another number of values.
    """
    labels = compared.labels.reshape(len(compared.labels), -1)
    size = output.reshape(len(output), -1).shape[1]
    if labels.shape[1] != size:
        shape = (len(labels), *output.shape[1:])
        raise DataError(
            compared.subject,
            expected=f"`y` of shape {shape}",
            got=str(compared.labels.shape),
            hint="one label for each value of the output, or state another task",
            code="EQ206",
        )
    return labels


def _whole(compared: _Compared, labels: Array) -> Array:
    if not (labels == np.rint(labels)).all():
        first = labels[labels != np.rint(labels)][0]
        raise DataError(
            compared.subject,
            expected="whole numbers in `y`",
            got=f"{first:g}",
            hint="y.astype(int), or state another task",
            code="EQ207",
        )
    return labels


def _binary(compared: _Compared, labels: Array) -> Array:
    if not np.isin(labels, (0, 1)).all():
        first = labels[~np.isin(labels, (0, 1))][0]
        raise DataError(
            compared.subject,
            expected="0 or 1 in `y`",
            got=f"{first:g}",
            hint="1 where the label applies, else 0; or state another task",
            code="EQ208",
        )
    return labels


def _check_names(compared: _Compared, count: int, what: str) -> None:
    if compared.names and len(compared.names) != count:
        raise UsageError(
            "labels",
            expected=f"{count} names, one a {what}",
            got=str(len(compared.names)),
            hint="give one name for each value of the output, in its order, or none",
        )


def _flat(output: Array) -> Array:
    return output.reshape(len(output), -1)
