"""Examine a variant beside its float model: run both, and compute the figures that fit the task."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Slice, Task
from edgeq.converters_client import Progress, edgeq_errors
from edgeq.errors import MissingExtra, UsageError
from edgeq.evaluation import robustness as corrupted
from edgeq.evaluation.both_models import BothModels
from edgeq.evaluation.by_task import figures_of
from edgeq.evaluation.details import Details
from edgeq.evaluation.edge_inputs import EdgeInput, edge_arrays, edge_figures
from edgeq.evaluation.robustness import measured_robustness
from edgeq.evaluation.slices import SliceFigures, rows_of, slice_figures
from edgeq.evaluation.task import LabelForm, TaskGuess, guess_task
from edgeq_converters.agreement import compare
from edgeq_converters.data.labels import check_labels

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_LIBRARIES = {"sklearn": "scikit-learn", "scipy": "scipy", "PIL": "Pillow"}


def examine(
    model: Path,
    reference: Path,
    evaluation: Path,
    *,
    task: Task | None = None,
    labels: Sequence[str] = (),
    slices: Sequence[Slice] = (),
    robustness: bool = False,
    robustness_samples: int = corrupted.SAMPLES,
    severities: Sequence[int] = corrupted.USUAL_SEVERITIES,
    seed: int = 0,
    sequence: bool = False,
    states: Sequence[tuple[str, str]] = (),
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
) -> Details:
    """Return where a variant is worse than its float model on the same samples.

    Classes are those of the float model's first output. A model that is guessed to be a detector gets the
    parts that do not depend on the task, and a note. Nothing is recorded.

    Args:
        model: the variant, a .tflite file.
        reference: its float .tflite.
        evaluation: data as for `evaluate_model`; `y` has the form that fits the task.
        task: what the first output means; None for what shapes and labels say (`guess_task`).
        labels: names of the classes or labels; none for their indices.
        slices: parts of the data; their limits are not used here (`edgeq.selection.gates_of`).
        robustness: measure both models on corrupted inputs, too.
        robustness_samples: the largest number of samples to corrupt, evenly spaced.
        severities: of the corruptions, 1 to 5.
        seed: of the bootstrap, and of noise and places in corruptions.
        sequence, states, on_progress: as for `evaluate_model`.
        deadline_s: each worker is killed after this time.

    Raises:
        UsageError: EQ101 the task is stated as detection, or the number of names is not that of the classes.
        MissingExtra: scikit-learn, scipy, Pillow or LiteRT is not installed.
        DataError: EQ2xx; EQ202, EQ203 and EQ205 also for a slice.
        ModelError: EQ3xx.
    """
    _require_supported(task)
    _require_libraries()
    both = BothModels.run(
        Path(reference),
        Path(model),
        Path(evaluation),
        columns=[part.where.column for part in slices],
        sequence=sequence,
        states=states,
        deadline_s=deadline_s,
        on_progress=on_progress,
    )
    guess = _task_of(both, task)
    subject = str(evaluation)
    rows = [
        rows_of(part, both.float_run.columns[part.where.column], samples=both.samples, subject=subject)
        for part in slices
    ]
    own = _class_labels(both, guess.task, subject)
    figures = figures_of(
        guess.task,
        both.expected[0],
        both.outputs[0],
        own if guess.task is Task.CLASSIFICATION else both.float_run.labels,
        inputs=both.float_run.inputs[0],
        names=labels,
        step=both.variant_run.info.outputs[0].scale,
        independent=both.independent,
        seed=seed,
        subject=subject,
    )
    notes = [*both.float_run.notes, *figures.notes]
    if guess.task is None:
        notes.append(f"no figures of a task: {guess.reason}; state one (--task, or [task] in a blueprint)")
    measured = None
    if robustness and (obstacle := _obstacle(both, guess.task)):
        notes.append(f"no robustness: {obstacle}")
    elif robustness:
        measured = measured_robustness(
            both.float_run.inputs,
            both.float_run.info.inputs,
            own,
            both.answers_to,
            samples=robustness_samples,
            severities=severities,
            seed=seed,
        )
        notes += ["no robustness: the inputs are not quantities"] if measured is None else []
    return Details(
        task=guess.task,
        task_reason=guess.reason,
        samples=both.samples,
        independent=both.independent,
        seed=seed,
        classes=figures.classes,
        probabilities=figures.probabilities,
        multi_label=figures.multi_label,
        regression=figures.regression,
        anomaly=figures.anomaly,
        segmentation=figures.segmentation,
        slices=_slice_figures(both, slices, rows, own, guess.task),
        robustness=measured,
        edge_inputs=_edge_inputs(both, classes=guess.task is Task.CLASSIFICATION),
        notes=tuple(notes),
        warnings=(*both.float_run.warnings, *figures.warnings),
    )


def _require_supported(task: Task | None) -> None:
    if task is Task.DETECTION:
        raise UsageError(
            "task",
            "details of a detector are not supported",
            expected=", ".join(each for each in Task if each is not Task.DETECTION),
            got=task,
            hint="`edgeq evaluate MODEL --data D.npz --reference FLOAT.tflite` without --details compares the"
            " boxes and scores of both models (agreement) and their SQNR",
        )


def _require_libraries() -> None:
    for module, name in _LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(
                "evaluation in detail",
                f"{name} is not installed (extra quantize)",
                hint="pip install 'edgeq[quantize]'",
            )


def _task_of(both: BothModels, task: Task | None) -> TaskGuess:
    if task is not None:
        return TaskGuess(task=task, reason="stated")
    labels = both.float_run.labels
    return guess_task(
        [each.shape[1:] for each in both.expected],
        None if labels is None else LabelForm.of(labels),
        inputs=[each.shape[1:] for each in both.float_run.inputs],
    )


def _class_labels(both: BothModels, task: Task | None, subject: str) -> Indices | None:
    """Return the labels of a classifier, checked; None for another task and without labels."""
    labels = both.float_run.labels
    if task is not Task.CLASSIFICATION or labels is None:
        return None
    with edgeq_errors():
        return check_labels(labels, samples=both.samples, classes=both.classes, subject=subject)


def _slice_figures(
    both: BothModels,
    slices: Sequence[Slice],
    rows: Sequence[Mask],
    labels: Indices | None,
    task: Task | None,
) -> tuple[SliceFigures, ...]:
    if not slices:
        return ()
    reference, variant = both.answers
    same = None
    if task is Task.CLASSIFICATION:
        same = reference == variant
    elif task is None:
        agreement = compare(both.outputs, both.expected, selected=both.variant_run.info.selected_outputs)
        same = None if agreement is None else agreement.same
    return tuple(
        slice_figures(
            part,
            own,
            right=None if labels is None else (reference == labels, variant == labels),
            same=same,
            independent=both.independent,
        )
        for part, own in zip(slices, rows, strict=True)
    )


def _obstacle(both: BothModels, task: Task | None) -> str:
    """Return why robustness cannot be measured; empty where it can."""
    if task is not Task.CLASSIFICATION:
        return "it compares classes, and the task is another one"
    return "" if both.independent else "the samples follow each other, and it takes some of them"


def _edge_inputs(both: BothModels, *, classes: bool) -> tuple[EdgeInput, ...]:
    tensors = both.variant_run.info.inputs
    arrays, kinds = edge_arrays(
        both.float_run.inputs,
        both.float_run.info.inputs,
        not_finite=all(np.dtype(tensor.dtype).kind == "f" for tensor in tensors),
    )
    expected, outputs = both.outputs_of(arrays, finite=False)
    return edge_figures(kinds, expected, outputs, classes=classes)
