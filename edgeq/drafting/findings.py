"""Compare a blueprint with its model and data: targets out of reach, contradictions, shared samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeq.blueprint import Blueprint, Task
from edgeq.drafting.dataset import (
    Dataset,
    guessed_task,
    layout_text,
    read_dataset,
    require_labels,
    shared_samples,
)
from edgeq.drafting.interface import SourceInterface, declared_interface
from edgeq.drafting.prepare import shared_text
from edgeq.drafting.targets import beyond_reach
from edgeq.drafting.techniques import refusals, usable_techniques
from edgeq.errors import BlueprintError, MissingExtra
from edgeq.evaluation.slices import rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a blueprint's files say about its targets.

    Attributes:
        samples: of the evaluation data; None where it cannot be read here.
        notes: what a run will leave out, or what was not compared.
        warnings: targets that cannot be reached or shown, contradictions, and data that overlaps.
    """

    samples: int | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def examine_blueprint(blueprint: Blueprint, path: Path) -> Findings:
    """Compare a blueprint with its model and data, without starting TensorFlow.

    Args:
        path: the blueprint's file, for messages.

    Raises:
        BlueprintError: the class names do not fit the outputs.
        DataError: EQ2xx data that cannot be read, does not fit the model, or has no samples for a slice.
        ModelError: EQ3xx the source is not a model, or one that cannot be converted.
    """
    notes: list[str] = []
    columns = tuple(dict.fromkeys(part.where.column for part in blueprint.slices))
    try:
        interface = declared_interface(blueprint.source)
        if interface is None:
            notes.append(f"{blueprint.source}: shapes are known after a conversion; data was not compared")
        datasets = {
            role: read_dataset(file, interface, columns=columns if role == "evaluation" else ())
            for role, file in _files(blueprint).items()
        }
    except MissingExtra as error:
        # Blueprints are also checked where nothing is converted, with the lean installation.
        return Findings(
            samples=None,
            notes=(f"model and data were not compared: {error.message}", *_techniques(blueprint)),
            warnings=(*_schemes(blueprint), *_types(blueprint)),
        )
    evaluation = datasets["evaluation"]
    task, about_task = _task(blueprint, evaluation, interface)
    if interface is not None:
        _require_names(blueprint, interface, task, path)
    for dataset in datasets.values():
        require_labels(dataset, interface, task)
    return Findings(
        samples=len(evaluation),
        notes=(*notes, *_techniques(blueprint)),
        warnings=(
            *([about_task] if about_task else []),
            *([layout_text(evaluation)] if evaluation.channels_first else []),
            *_targets(blueprint, evaluation, task),
            *_schemes(blueprint),
            *_types(blueprint),
            *_overlaps(datasets),
        ),
    )


def _files(blueprint: Blueprint) -> Mapping[str, Path]:
    named = {
        "evaluation": blueprint.evaluation,
        "calibration": blueprint.calibration,
        "training": blueprint.training,
        "validation": blueprint.validation,
    }
    return {role: file for role, file in named.items() if file is not None}


def _task(
    blueprint: Blueprint, evaluation: Dataset, interface: SourceInterface | None
) -> tuple[Task | None, str | None]:
    """Return (the task, a warning where the blueprint leaves one out that it needs)."""
    if blueprint.task is not None or interface is None:
        return blueprint.task, None
    guess = guessed_task(evaluation, interface)
    if guess.task in (None, Task.CLASSIFICATION) or evaluation.labels is None:
        return guess.task, None
    return guess.task, (
        f'without [task] kind = "{guess.task}", labels are taken for classes; but {guess.reason}'
    )


def _require_names(blueprint: Blueprint, interface: SourceInterface, task: Task | None, path: Path) -> None:
    """Check that there are as many class names as classes.

    Raises:
        BlueprintError: there are not.
    """
    classes = interface.classes
    if not blueprint.labels or classes is None or task not in (None, Task.CLASSIFICATION, Task.MULTI_LABEL):
        return
    if len(blueprint.labels) != classes:
        raise BlueprintError(
            f"{path}: model.labels",
            expected=f"{classes} names, one for each value of the output",
            got=str(len(blueprint.labels)),
            hint="correct the names, or leave `labels` out",
        )


def _targets(blueprint: Blueprint, evaluation: Dataset, task: Task | None) -> Iterator[str]:
    """Yield the targets of the blueprint, its devices and slices that the evaluation data cannot show.

    Raises:
        DataError: EQ202 no sample belongs to a slice, EQ203 or EQ205 its column has another form.
    """
    subject, labels, everything = str(evaluation.path), evaluation.labels, np.ones(len(evaluation), np.bool_)
    groups = [("", blueprint.limits, everything)]
    groups += [(f" for {kind}", limits, everything) for kind, limits in blueprint.device_limits.items()]
    for part in blueprint.slices:
        column = evaluation.raw.columns[part.where.column]
        rows = rows_of(part, column, samples=len(evaluation), subject=subject)
        groups.append((f" in slice {part.name}", part.limits, rows))
    for where, limits, rows in groups:
        chosen = None if labels is None else labels[rows]
        yield from beyond_reach(limits, samples=int(rows.sum()), labels=chosen, task=task, where=where)


def _schemes(blueprint: Blueprint) -> Iterator[str]:
    """Yield schemes and kinds of devices that do not come together."""
    kinds = blueprint.device_schemes
    for kind in kinds:
        if not blueprint.schemes_for(kind):
            yield (
                f"{kind} gets none of the variants: its schemes are {', '.join(kinds[kind])}, and "
                f"variants.schemes has {', '.join(blueprint.schemes)}"
            )
    for scheme in blueprint.schemes:
        if kinds and not any(scheme in allowed for allowed in kinds.values()):
            yield f"{scheme} is made, but allowed for none of {', '.join(kinds)}"


def _types(blueprint: Blueprint) -> Iterator[str]:
    """Yield that the types of inputs and outputs do not fit a scheme."""
    if blueprint.io is None:
        return
    integer = [scheme for scheme in blueprint.schemes if scheme.needs_ranges]
    if not integer:
        yield f"io {blueprint.io} is for integer schemes, and variants.schemes has none"
    for scheme in integer:
        if blueprint.io not in scheme.io_types:
            yield f"{scheme} cannot have io {blueprint.io}; it can have {', '.join(scheme.io_types)}"


def _techniques(blueprint: Blueprint) -> Iterator[str]:
    """Yield the techniques that are allowed and cannot be used."""
    refused, _ = usable_techniques(blueprint.source, schemes=blueprint.schemes, training=blueprint.training)
    allowed = {technique: why for technique, why in refused.items() if technique in blueprint.techniques}
    if allowed:
        yield f"a run leaves out: {refusals(allowed)}"


def _overlaps(datasets: Mapping[str, Dataset]) -> Iterator[str]:
    evaluation = datasets["evaluation"]
    for role in ("calibration", "training"):
        if role in datasets and (count := shared_samples(datasets[role], evaluation)):
            yield shared_text(count, evaluation, datasets[role])
