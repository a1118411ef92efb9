"""Running models on one set of samples, as the worker does it for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeq_converters.data import drift, sample_files, samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference
from edgeq_converters.progress import Step
from edgeq_converters.values import ModelInfo
from edgeq_converters.worker.jobs import conversion


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One model's outputs.

    Attributes:
        outputs: in the model's own types, samples first.
    """

    info: ModelInfo
    outputs: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The outputs of all models on the same samples, in the order of the models.

    Attributes:
        inputs: the samples in the types of the first model's inputs.
        labels: checked against the first model's first output; None where the data has none.
    """

    runs: tuple[Run, ...]
    inputs: tuple[npt.NDArray[Any], ...]
    labels: npt.NDArray[Any] | None
    notes: tuple[str, ...]


def run_models(models: Sequence[Path], data: Path, *, step: Step) -> Runs:
    """Run each model over the data.

    Raises:
        ConverterError: EQ2xx bad data, EQ301..303 bad model, EQ312 the models' inputs or outputs differ.
    """
    raw = sample_files.read(data)
    infos = [conversion.inspect(model) for model in models]
    for model, info in zip(models[1:], infos[1:], strict=True):
        _same_interface(models[0], infos[0], model, info)
    matched = samples.match(raw, infos[0].inputs)
    labels = None
    if raw.labels is not None:
        sizes = infos[0].outputs[0].shape
        labels = samples.check_labels(
            raw.labels, samples=len(matched), classes=sizes[-1] if len(sizes) > 1 else 1, subject=raw.subject
        )
    advance = step("run", len(matched) * len(models))
    runs = tuple(
        Run(
            info=info,
            outputs=inference.outputs(model.read_bytes(), matched, subject=str(model), advance=advance),
        )
        for model, info in zip(models, infos, strict=True)
    )
    inputs = tuple(
        samples.to_model(array, tensor) for array, tensor in zip(matched.arrays, infos[0].inputs, strict=True)
    )
    notes = (*matched.notes, *_clipping(models, infos, matched))
    return Runs(runs=runs, inputs=inputs, labels=labels, notes=notes)


def _clipping(models: Sequence[Path], infos: Sequence[ModelInfo], matched: samples.Samples) -> list[str]:
    found = [
        drift.clipping_note(drift.clipped(array, tensor), tensor, model=str(model))
        for model, info in zip(models, infos, strict=True)
        for array, tensor in zip(matched.arrays, info.inputs, strict=True)
    ]
    return [note for note in found if note is not None]


def _same_interface(first: Path, one: ModelInfo, second: Path, other: ModelInfo) -> None:
    for what in ("inputs", "outputs"):
        expected = [tensor.shape for tensor in getattr(one, what)]
        got = [tensor.shape for tensor in getattr(other, what)]
        if expected != got:
            raise ConverterError(
                "EQ312",
                str(second),
                f"its {what} are not those of {first}",
                expected=str(expected),
                got=str(got),
                hint="give the float .tflite that the model was converted from",
            )
