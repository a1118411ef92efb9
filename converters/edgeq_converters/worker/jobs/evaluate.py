"""The job `evaluate`: run models on the same samples and write their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files, samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.values import ModelInfo
from edgeq_converters.worker.jobs.inspect import inspect
from edgeq_converters.worker.protocol import EvaluateJob, EvaluateResult


def run(job: EvaluateJob, step: Step) -> EvaluateResult:
    """Run every model of the job on its data and write the arrays.

    Raises:
        ConverterError: EQ2xx bad data, EQ301..303 a bad model, EQ312 inputs or outputs differ between models.
    """
    models = job.models
    raw = files.read(job.data)
    infos = tuple(inspect(model) for model in models)
    for model, info in zip(models[1:], infos[1:], strict=True):
        _require_same_interface(models[0], infos[0], model, info)
    matched = samples.match(raw, infos[0].inputs)
    arrays: dict[str, npt.NDArray[Any]] = {
        f"input_{i}": samples.to_model(array, tensor)
        for i, (array, tensor) in enumerate(zip(matched.arrays, infos[0].inputs, strict=True))
    }
    if raw.labels is not None:
        sizes = infos[0].outputs[0].shape
        arrays["y"] = samples.check_labels(
            raw.labels, samples=len(matched), classes=sizes[-1] if len(sizes) > 1 else 1, subject=raw.subject
        )
    advance = step("run", len(matched) * len(models))
    for number, model in enumerate(models):
        outputs = run_samples(Model.read(model), matched, advance=advance)
        arrays.update({f"run_{number}_output_{i}": array for i, array in enumerate(outputs)})
    np.savez(job.arrays, **arrays)  # type: ignore[arg-type] # its stub takes allow_pickle there
    return EvaluateResult(infos=infos, notes=(*matched.notes, *_clipping(models, infos, matched)))


def _clipping(models: Sequence[Path], infos: Sequence[ModelInfo], matched: samples.Samples) -> list[str]:
    notes = [
        samples.clipping_note(samples.clipped_share(array, tensor), tensor, model=str(model))
        for model, info in zip(models, infos, strict=True)
        for array, tensor in zip(matched.arrays, info.inputs, strict=True)
    ]
    return [note for note in notes if note is not None]


def _require_same_interface(first: Path, one: ModelInfo, second: Path, other: ModelInfo) -> None:
    for what in ("inputs", "outputs"):
        expected = [tensor.shape for tensor in getattr(one, what)]
        got = [tensor.shape for tensor in getattr(other, what)]
        if expected != got:
            raise ConverterError(
                "EQ312",
                str(second),
                f"its {what} differ from those of {first}",
                expected=str(expected),
                got=str(got),
                hint="give the float .tflite from which the model was converted",
            )
