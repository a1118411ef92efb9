"""Compose a draft: look at a model and its data, and choose what works at once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from edgeq.blueprint import Scheme, Task, Technique
from edgeq.converters_client import Progress
from edgeq.drafting.discover import DataFiles, find_data, find_model
from edgeq.drafting.draft import Draft
from edgeq.drafting.interface import SourceInterface, read_interface
from edgeq.drafting.limits import Limit, choose_limit
from edgeq.drafting.prepare import DataPart, Prepared, prepare
from edgeq.drafting.techniques import refusals, usable_techniques
from edgeq.drafting.template import Content, DataLine, blueprint_text
from edgeq.errors import UsageError
from edgeq.values import DeviceKind
from edgeq_converters.data.array_names import plain

_SCHEMA = Path(".edgeq") / "blueprint.schema.json"
_NAMED_CLASSES = (Task.CLASSIFICATION, Task.MULTI_LABEL, Task.SEGMENTATION)
_LONGEST_NAME = 64


def draft_blueprint(
    model: Path | str | None = None,
    *,
    data: Path | str | None = None,
    calibration: Path | str | None = None,
    evaluation: Path | str | None = None,
    training: Path | str | None = None,
    labels: Sequence[str] = (),
    name: str | None = None,
    kind: DeviceKind | None = None,
    output: Path | str = Path("blueprint.toml"),
    workspace: Path | str = Path(),
    seed: int = 0,
    deadline_s: float = 600.0,
    on_progress: Progress | None = None,
) -> Draft:
    """Look at a model and data and return a blueprint for them; nothing is written.

    Args:
        model: a .keras, .h5, .onnx, .pt2 or float .tflite file or a SavedModel folder; None for the only one
            in the current folder.
        data: one .npz, .npy or folder of images for everything: it is split, unless `calibration` is given.
            Without any data, that of the current folder is taken.
        calibration, evaluation, training: data for one purpose. Without `calibration`, up to 300 samples of
            `training` are taken; without both, there is no integer scheme.
        labels: class names; empty takes those of the data.
        name: of the model on devices; None takes that of the file.
        kind: the kind of device that gets a table of its own.
        output: where the blueprint will be; paths in it are relative to its folder.
        workspace: its `.edgeq` folder gets the JSON Schema.
        seed: of the split.
        deadline_s: a worker that reads the model is killed after this time.
        on_progress: called with (step, done, total) if the model must be converted to read it.

    Raises:
        UsageError: no model or data, or several; names that do not fit the outputs.
        MissingExtra: EQ104 a package to read the model or the data is not installed.
        DataError: EQ2xx the data does not fit the model, or is unusable.
        ModelError: EQ3xx the model cannot be read or converted.
    """
    taken: list[str] = []
    if model is None:
        model = find_model(Path())
        taken.append(f"model: {model}")
    output, workspace = Path(output), Path(workspace)
    files = DataFiles(
        whole=_path(data),
        calibration=_path(calibration),
        evaluation=_path(evaluation),
        training=_path(training),
    )
    if not files.all:
        files = find_data(Path())
        taken.append(f"data: {', '.join(str(path) for path in files.all)}")
    interface = read_interface(Path(model), deadline_s=deadline_s, on_progress=on_progress)
    prepared = prepare(files, interface, folder=output.parent, seed=seed)
    class_names, about_names = _class_names(labels, prepared, interface)
    schemes = _schemes(prepared, kind)
    techniques, left_out = _techniques(interface, prepared, schemes)
    limit = _limit(prepared)
    text = blueprint_text(
        Content(
            schema=os.path.relpath(workspace / _SCHEMA, output.parent),
            file=output.name,
            name=_name(name or interface.source.stem),
            source=_relative(interface.source, output.parent),
            interface=_described(interface),
            labels=class_names,
            task=prepared.guess.task,
            reason=prepared.guess.reason,
            data=[_data_line(part, output.parent) for part in prepared.parts],
            schemes=schemes,
            techniques=techniques,
            left_out=left_out,
            limit=limit,
            conditions=prepared.conditions,
            kind=kind,
        )
    )
    return Draft(
        path=output,
        schema=workspace / _SCHEMA,
        text=text,
        interface=interface,
        task=prepared.guess.task,
        reason=prepared.guess.reason,
        labels=class_names,
        schemes=schemes,
        data=prepared.parts,
        limit=limit,
        shared=prepared.shared,
        new_files=prepared.new_files,
        notes=(*taken, *prepared.notes, _about_task(prepared)),
        warnings=(*prepared.warnings, *about_names, *_about_limits(limit, schemes, kind)),
    )


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _evaluation(prepared: Prepared) -> DataPart:
    part = prepared.part("evaluation")
    if part is None:
        raise TypeError("data was prepared without evaluation data")
    return part


def _schemes(prepared: Prepared, kind: DeviceKind | None) -> tuple[Scheme, ...]:
    if prepared.part("calibration") is None:
        return (Scheme.FLOAT16,)
    # An Edge TPU runs int8 alone.
    return (Scheme.INT8,) if kind is DeviceKind.CORAL else (Scheme.FLOAT16, Scheme.INT8)


def _limit(prepared: Prepared) -> Limit:
    judged_on = _evaluation(prepared)
    return choose_limit(
        prepared.guess.task,
        samples=judged_on.samples,
        labelled=judged_on.labelled,
        sequences=prepared.sequences,
    )


def _class_names(
    given: Sequence[str], prepared: Prepared, interface: SourceInterface
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (class names, warnings about those of the data).

    Raises:
        UsageError: the user's names do not fit the outputs.
    """
    classes = interface.classes
    if given:
        if classes is not None and len(given) != classes:
            raise UsageError(
                "--labels",
                expected=f"{classes} names, one for each value of the output",
                got=str(len(given)),
                hint="give the names in the order of the output: --labels no,yes",
            )
        return tuple(given), ()
    names = prepared.class_names
    if not names or prepared.guess.task not in _NAMED_CLASSES:
        return (), ()
    if classes is not None and len(names) != classes:
        return (), (
            f"the data names {len(names)} classes, and the output has {classes}: the names are left out, and"
            " labels may stand for other classes",
        )
    return names, ()


def _techniques(
    interface: SourceInterface, prepared: Prepared, schemes: Sequence[Scheme]
) -> tuple[tuple[Technique, ...], str]:
    """Return (techniques that can be used, why the others cannot)."""
    train_on = prepared.part("training")
    refused, usable = usable_techniques(
        interface.source, schemes=schemes, training=None if train_on is None else train_on.path
    )
    return usable, refusals(refused)


def _about_task(prepared: Prepared) -> str:
    task, reason = prepared.guess.task, prepared.guess.reason
    return f"the task is not certain: {reason}" if task is None else f"task: {task}, because {reason}"


def _about_limits(limit: Limit, schemes: Sequence[Scheme], kind: DeviceKind | None) -> list[str]:
    warnings = [f"the evaluation data is small: {limit.shortage}"] if limit.shortage else []
    if Scheme.INT8 not in schemes:
        only = ", and an Edge TPU runs no other scheme" if kind is DeviceKind.CORAL else ""
        warnings.append(f"without calibration data the blueprint has no int8{only}; --calibration gives it")
    return warnings


def _described(interface: SourceInterface) -> list[str]:
    """Return a line for each input and output: its name, the shape of the data, its type."""
    ends = [("input", tensor) for tensor in interface.inputs]
    ends += [("output", tensor) for tensor in interface.outputs]
    return [
        f"{end} {plain(tensor.name)}: {_shape(interface.sample_of(tensor))} {tensor.dtype}"
        for end, tensor in ends
    ]


def _shape(sample: Sequence[int]) -> str:
    return f"({', '.join(['n', *('?' if size < 0 else str(size) for size in sample)])})"


def _data_line(part: DataPart, folder: Path) -> DataLine:
    remark = (
        f"{part.samples} sample{'s' if part.samples != 1 else ''}{' with labels' if part.labelled else ''}"
    )
    return DataLine(role=part.role, path=_relative(part.path, folder), remark=remark)


def _relative(path: Path, folder: Path) -> str:
    """Return a path as the blueprint names it: relative to its folder.

    An absolute path to another place stays as the user gave it.
    """
    relative = os.path.relpath(path, folder)
    return str(path) if path.is_absolute() and relative.startswith("..") else relative


def _name(text: str) -> str:
    """Return a name that devices accept: lower case letters, digits, `.`, `_` and `-`."""
    plain_text = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).lstrip("._-")
    return plain_text[:_LONGEST_NAME].rstrip("-") or "model"
