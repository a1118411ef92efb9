"""Evaluate a model on labelled data: accuracy, and agreement and SQNR against a float reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Task
from edgeq.converters_client import Progress
from edgeq.errors import ModelError
from edgeq.evaluation.running import dequantized, run_all
from edgeq.files import sha256_of
from edgeq.store import Recorder, recording_store
from edgeq.values import Metrics
from edgeq_converters import intervals
from edgeq_converters.agreement import aligned, compare
from edgeq_converters.metrics import output_sqnr, sqnr_db, useless_result
from edgeq_converters.values import OutputSqnr

Real = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model file with its digest."""

    path: Path
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Return the digest and size of a file."""
        return cls(path=path, sha256=sha256_of(path), size_bytes=path.stat().st_size)

    def to_json(self) -> dict[str, Any]:
        """Return the file as JSON types."""
        return {"path": str(self.path), "sha256": self.sha256, "size_bytes": self.size_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The metrics of one model on one data set.

    Attributes:
        reference: the float model that it was compared with; None without one.
        sequences: how many sequences the samples were, each independent sample being one; None where no
            model keeps state.
        notes: how the data was adapted to the model's inputs.
        warnings: that the model is useless, which share of the values an integer input clips, and data that
            was not used.
    """

    model: ModelFile
    reference: ModelFile | None
    data: Path
    metrics: Metrics
    sequences: int | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as `edgeq.evaluate/1`, for `--json` and the store."""
        return {
            "model": self.model.to_json(),
            "reference": None if self.reference is None else self.reference.to_json(),
            "data": str(self.data),
            "metrics": asdict(self.metrics),
            "sequences": self.sequences,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def evaluate(
    model: Path,
    data: Path,
    *,
    reference: Path | None = None,
    sequence: bool = False,
    states: Sequence[tuple[str, str]] = (),
    task: Task | None = None,
    columns: Sequence[str] = (),
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
    deadline_s: float = 3600.0,
    store: Recorder | None = None,
) -> Metrics:
    """Return a model's metrics on data, and record the run.

    Args:
        on_note: called with each of the evaluation's notes and warnings.

    Other arguments and errors as in `evaluate_model`.
    """
    evaluation = evaluate_model(
        model,
        data,
        reference=reference,
        sequence=sequence,
        states=states,
        task=task,
        columns=columns,
        on_progress=on_progress,
        deadline_s=deadline_s,
        store=store,
    )
    if on_note is not None:
        for note in (*evaluation.notes, *evaluation.warnings):
            on_note(note)
    return evaluation.metrics


def evaluate_model(
    model: Path,
    data: Path,
    *,
    reference: Path | None = None,
    sequence: bool = False,
    states: Sequence[tuple[str, str]] = (),
    task: Task | None = None,
    columns: Sequence[str] = (),
    on_progress: Progress | None = None,
    strict: bool = False,
    deadline_s: float = 3600.0,
    store: Recorder | None = None,
) -> Evaluation:
    """Evaluate a model on data and record the run.

    The classes are those of the first output; the SQNR is over all outputs, dequantized.

    Args:
        model: a .tflite file.
        data: .npz with `x` (or one array per input name) and `y` for accuracy; .npy; or a folder of images.
        reference: the float .tflite to compare with.
        sequence: the samples are one sequence, in which a model that keeps state is not reset. Sequences of
            an array `sequence_id` in the data hold in any case.
        states: (input, output) of states: the output is the input's value at the next step; by default what
            the files say, else those with certain names.
        task: of another one than classification, `y` may be numbers of any type and shape, and there is no
            accuracy: `examine` has the figures.
        columns: names of arrays of the data that slices use: no input takes them, and they are not reported
            as unused.
        on_progress: called with (step, done, total).
        strict: EQ334 for a useless model, once the run is recorded, in place of a warning.
        deadline_s: the worker is killed after this time.
        store: where to record the run: None is the store of the default workspace, `UNRECORDED` keeps no
            record.

    Raises:
        MissingExtra: LiteRT is not installed.
        DataError: EQ2xx.
        ModelError: EQ3xx.
        StoreError: the run cannot be recorded.
    """
    in_classes = task in (None, Task.CLASSIFICATION)
    models = [Path(model), *([Path(reference)] if reference is not None else [])]
    runs = run_all(
        models,
        Path(data),
        sequence=sequence,
        states=states,
        columns=columns,
        any_labels=not in_classes,
        deadline_s=deadline_s,
        on_progress=on_progress,
    )
    outputs = dequantized(runs[0].outputs, runs[0].info.outputs)
    labels = runs[0].labels if in_classes else None
    expected = dequantized(runs[1].outputs, runs[1].info.outputs) if len(runs) > 1 else None
    metrics = metrics_of(
        outputs,
        expected,
        labels,
        names=[tensor.name for tensor in runs[0].info.outputs],
        independent=runs[0].sequences in (None, len(outputs[0])),
        selected=runs[-1].info.selected_outputs,
    )
    useless = metrics.useless
    evaluation = Evaluation(
        model=ModelFile.of(models[0]),
        reference=ModelFile.of(models[1]) if len(models) > 1 else None,
        data=Path(data),
        metrics=metrics,
        sequences=runs[0].sequences,
        notes=runs[0].notes,
        warnings=(*([f"the model is useless: {useless}"] if useless else []), *runs[0].warnings),
    )
    with recording_store(store) as records:
        records.record_run("evaluate", evaluation.model.path.stem, evaluation.to_json())
    judged(evaluation.model.path, evaluation.metrics, strict=strict)
    return evaluation


def metrics_of(
    outputs: Sequence[Real],
    expected: Sequence[Real] | None,
    labels: npt.NDArray[np.int64] | None,
    *,
    names: Sequence[str] = (),
    independent: bool = True,
    selected: Sequence[int] = (),
) -> Metrics:
    """Return the metrics of a model's outputs. A pure function.

    Args:
        outputs: real values, samples first; classes are those of the first. `edgeq_converters.agreement`
            says how boxes and masks are recognized.
        expected: the float model's, in the same order; None without one.
        labels: the right class of each sample; None without them.
        names: of the outputs; their positions without them.
        independent: whether the samples are independent of each other; there are no intervals otherwise.
        selected: positions of the outputs that NON_MAX_SUPPRESSION and what follows it compute.
    """
    answers = predicted(outputs[0])
    right = None if labels is None else answers == labels
    agreed = (
        None
        if expected is None
        else compare(outputs, expected, labelled=labels is not None, selected=selected)
    )
    same = None if agreed is None else agreed.same
    if expected is not None:
        outputs, expected = aligned(outputs, expected, selected=selected)
    listed = agreed is not None and agreed.listed
    useless = agreed.useless if agreed is not None else None
    if useless is None and (selected or not listed):
        useless = useless_result(*_by_place(outputs, expected, selected), labels)
    drop = None
    if right is not None and expected is not None:
        drop = intervals.drop(predicted(expected[0]) == labels, right)
    return Metrics(
        samples=len(answers),
        accuracy=None if labels is None else accuracy(outputs[0], labels),
        agreement=None if agreed is None else agreed.share,
        agreement_of=None if agreed is None else agreed.answer.value,
        output_sqnr_db=None if expected is None else sqnr_db(outputs, expected),
        outputs=_by_output(outputs, expected, names),
        useless=useless,
        accuracy_ci95=intervals.share_ci95(right) if independent and right is not None else None,
        agreement_ci95=intervals.share_ci95(same) if independent and same is not None else None,
        accuracy_drop=None if drop is None else drop.share,
        accuracy_drop_ci95=drop.ci95 if independent and drop is not None else None,
        smallest_drop=drop.smallest if independent and drop is not None else None,
    )


def _by_place(
    outputs: Sequence[Real], expected: Sequence[Real] | None, selected: Sequence[int]
) -> tuple[Sequence[Real], Sequence[Real] | None]:
    """Return (outputs, the float model's) without those whose rows are selected: they have no fixed place."""
    if expected is None:
        return outputs, None
    kept = [i for i in range(len(outputs)) if i not in selected]
    return [outputs[i] for i in kept], [expected[i] for i in kept]


def _by_output(
    outputs: Sequence[Real], expected: Sequence[Real] | None, names: Sequence[str]
) -> tuple[OutputSqnr, ...]:
    labelled = names or [str(number) for number in range(len(outputs))]
    return tuple(
        output_sqnr(name, output, reference)
        for name, output, reference in zip(labelled, outputs, expected or (), strict=False)
    )


def judged(path: Path, metrics: Metrics, *, strict: bool) -> str | None:
    """Return the warning that a model is useless; None where it is not.

    Raises:
        ModelError: EQ334 it is, and the user does not accept that.
    """
    if metrics.useless is None:
        return None
    problem = f"the model is useless: {metrics.useless}"
    if strict:
        hint = "`edgeq sensitivity FLOAT --calibration C.npz --evaluation E.npz` shows the operation"
        raise ModelError(str(path), problem, hint=hint, code="EQ334")
    return f"{path}: {problem}"


def predicted(output: Real) -> npt.NDArray[np.int64]:
    """Return each sample's class: the index of the largest value, the first of equal ones.

    Args:
        output: (samples, classes), or with axes of length one in between.
    """
    best: npt.NDArray[np.int64] = np.argmax(output.reshape(len(output), -1), axis=1).astype(np.int64)
    return best


def accuracy(output: Real, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of samples whose predicted class is the label, 0..1."""
    return float(np.mean(predicted(output) == labels))
