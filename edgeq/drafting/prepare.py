"""Read the data of a draft, split it where one file is for everything, and count what data sets share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.drafting.columns import column_names, conditions
from edgeq.drafting.dataset import (
    Dataset,
    guessed_task,
    layout_text,
    read_dataset,
    require_labels,
    shared_samples,
)
from edgeq.drafting.discover import DataFiles
from edgeq.drafting.interface import SourceInterface
from edgeq.drafting.split import NewFile, calibration_part, split
from edgeq.errors import UsageError
from edgeq.evaluation import TaskGuess
from edgeq_converters.values import notes_of, warnings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPart:
    """Data that a blueprint names.

    Attributes:
        role: the key under `[data]`: `calibration`, `evaluation`, `training`, `validation`.
        created: whether the draft makes the file.
    """

    role: str
    path: Path
    samples: int
    labelled: bool
    created: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The data of a draft.

    Attributes:
        guess: the task that fits the model and the labels.
        class_names: empty where the data does not name the classes.
        conditions: on arrays of the evaluation data with one value a sample that the model does not take.
        sequences: whether samples follow each other.
        shared: samples of the evaluation data that calibration or training data have, too.
    """

    parts: tuple[DataPart, ...]
    new_files: tuple[NewFile, ...]
    guess: TaskGuess
    class_names: tuple[str, ...]
    conditions: tuple[str, ...]
    sequences: bool
    shared: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def part(self, role: str) -> DataPart | None:
        """Return the data of a role; None without it."""
        return next((part for part in self.parts if part.role == role), None)


def prepare(files: DataFiles, interface: SourceInterface, *, folder: Path, seed: int) -> Prepared:
    """Return the data of a draft, compared with the model.

    Args:
        folder: of the files that are added: calibration.npz and evaluation.npz.

    Raises:
        UsageError: there is nothing to evaluate on.
        DataError: EQ2xx, as a conversion and an evaluation raise.
    """
    files = _with_evaluation(files)
    judged_on = files.evaluation or files.whole
    if judged_on is None:
        raise UsageError(
            "--evaluation",
            expected="data to measure variants on",
            got="none",
            hint="give --evaluation FILE, or --data FILE to split one file",
        )
    columns = column_names(judged_on, interface.inputs)
    evaluation = read_dataset(judged_on, interface, columns=columns)
    guess = guessed_task(evaluation, interface)
    given = {
        role: read_dataset(path, interface)
        for role, path in (
            ("calibration", files.calibration),
            ("training", files.training),
            ("validation", files.validation),
        )
        if path is not None
    }
    for dataset in (evaluation, *given.values()):
        require_labels(dataset, interface, guess.task)
    parts, new_files, notes = _parts(files, evaluation, given, folder=folder, seed=seed)
    remarks = [remark for dataset in (evaluation, *given.values()) for remark in _remarks(dataset)]
    warnings, shared = list(warnings_of(remarks)), 0
    if evaluation.channels_first:
        warnings.append(layout_text(evaluation))
    if files.evaluation is not None:
        for role in ("calibration", "training"):
            if role in given and (count := shared_samples(given[role], evaluation)):
                shared += count
                warnings.append(shared_text(count, evaluation, given[role]))
    sequences = _is_sequence(evaluation)
    if sequences and evaluation.samples is not None:
        notes = (*notes, f"{evaluation.path}: {evaluation.samples.sequences} sequences of samples")
    named = next((each.raw.class_names for each in (evaluation, *given.values()) if each.raw.class_names), ())
    return Prepared(
        parts=parts,
        new_files=new_files,
        guess=guess,
        class_names=named,
        conditions=conditions(evaluation.raw.columns),
        sequences=sequences,
        shared=shared,
        notes=(*notes_of(remarks), *notes),
        warnings=tuple(warnings),
    )


def _with_evaluation(files: DataFiles) -> DataFiles:
    """Return the files with the data for everything as evaluation data, if there is calibration data.

    Raises:
        UsageError: data for everything and evaluation data.
    """
    if files.whole is None:
        return files
    if files.evaluation is not None:
        raise UsageError(
            "--data",
            "is data for everything, which evaluation data leaves nothing to do",
            got=f"{files.whole} beside {files.evaluation}",
            hint="give --data alone, or --evaluation with --calibration or --training",
        )
    return replace(files, whole=None, evaluation=files.whole) if files.calibration is not None else files


def shared_text(count: int, evaluation: Dataset, other: Dataset) -> str:
    """Return the warning that two data sets share samples."""
    return (
        f"{count} of {len(evaluation)} samples of {evaluation.path} are in {other.path}, too: the accuracy on"
        " them does not hold for new data"
    )


def _parts(
    files: DataFiles, evaluation: Dataset, given: dict[str, Dataset], *, folder: Path, seed: int
) -> tuple[tuple[DataPart, ...], tuple[NewFile, ...], tuple[str, ...]]:
    """Return (the data, files to add, what was done)."""
    labelled = evaluation.labels is not None
    parts = [
        DataPart(role=role, path=each.path, samples=len(each), labelled=each.labels is not None)
        for role, each in given.items()
    ]
    added: list[NewFile] = []
    notes = []
    if files.evaluation is not None:
        parts.append(
            DataPart(role="evaluation", path=evaluation.path, samples=len(evaluation), labelled=labelled)
        )
        if "calibration" not in given and "training" in given:
            training = given["training"]
            added = [calibration_part(training, folder=folder, seed=seed)]
            parts.append(_created("calibration", added[0], labelled=training.labels is not None))
            notes.append(f"took {added[0].samples} samples of {training.path} for {added[0].path}")
    else:
        added = list(split(evaluation, folder=folder, seed=seed))
        parts += [_created(new.path.stem, new, labelled=labelled) for new in added]
        how = "by label" if labelled else "at random"
        into = " and ".join(f"{new.path} ({new.samples} samples)" for new in added)
        notes.append(f"split {evaluation.path} {how} into {into}")
    order = ("calibration", "evaluation", "training", "validation")
    return tuple(sorted(parts, key=lambda part: order.index(part.role))), tuple(added), tuple(notes)


def _created(role: str, new: NewFile, *, labelled: bool) -> DataPart:
    return DataPart(role=role, path=new.path, samples=new.samples, labelled=labelled, created=True)


def _is_sequence(dataset: Dataset) -> bool:
    """Return whether samples of the data set depend on each other."""
    return dataset.samples is not None and dataset.samples.sequences < len(dataset)


def _remarks(dataset: Dataset) -> Iterator[str]:
    if dataset.samples is not None:
        yield from dataset.samples.notes
