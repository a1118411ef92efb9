"""Run .tflite models on data, always in a child process: a malformed file cannot crash the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.converters_client import Progress, worker_session
from edgeq_converters.data import array_names
from edgeq_converters.data.samples import to_real
from edgeq_converters.sources import detect
from edgeq_converters.values import ModelInfo, TensorInfo
from edgeq_converters.worker.protocol import EvaluateJob, EvaluateResult, InspectJob

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """The outputs of one model on data.

    Attributes:
        inputs: the samples in the types of this model's inputs, samples first.
        outputs: in the model's own types, samples first.
        labels: int64 (samples,), checked against the outputs, or with `any_labels` numbers of any type and
            shape, samples first; None where the data has none.
        sequences: how many sequences the samples were, each independent sample being one; None for a model
            that neither keeps nor carries a state.
        notes: how the data was adapted to the model's inputs.
        warnings: what may be wrong with the data.
        columns: by name, the arrays of the data that were asked for; unchecked.
    """

    info: ModelInfo
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    labels: Array | None
    sequences: int | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    columns: Mapping[str, Array] = field(default_factory=dict)


def describe(model: Path, *, deadline_s: float = 120.0) -> ModelInfo:
    """Return a .tflite's inputs, outputs and operations, after one run on zeros.

    Raises:
        ModelError: EQ301 no such file, EQ302 not a .tflite, EQ303 truncated, damaged, or it crashes the
            runtime.
    """
    model = Path(model)
    with worker_session("describe") as session:
        detect.require_tflite(model)
        return session.run(InspectJob(model=model), subject=model, deadline_s=deadline_s)


def raw_outputs(
    model: Path, arrays: Array | Sequence[Array] | Mapping[str, Array], *, deadline_s: float = 600.0
) -> tuple[Array, ...]:
    """Return the model's outputs in its own types, samples first; arguments as in `run`."""
    return run(model, arrays, deadline_s=deadline_s).outputs


def run(
    model: Path,
    data: Path | Array | Sequence[Array] | Mapping[str, Array],
    *,
    sequence: bool = False,
    compiled: Path | None = None,
    any_labels: bool = False,
    deadline_s: float = 600.0,
) -> ModelRun:
    """Run a model on data.

    The state of a model that keeps one is reset before each sample. With an array `sequence_id` in the data,
    it is reset where the id changes.

    Args:
        data: a path (.npz, .npy, folder of images), an array for a model with one input, one array per input
            in the model's order, or a mapping {input name: array}. Samples first; real values, or integers of
            the input's type.
        sequence: reset the state before the first sample only, unless the data has `sequence_id`.
        compiled: a model for the Edge TPU that must have the same inputs and outputs; it is not run.
        any_labels: `y` may be numbers of any type and shape, samples first; else it is integers for classes.
        deadline_s: the worker is killed after this time.

    Raises:
        DataError: EQ2xx.
        ModelError: EQ3xx.
    """
    return run_all(
        [Path(model)],
        data,
        sequence=sequence,
        compiled=compiled,
        any_labels=any_labels,
        deadline_s=deadline_s,
    )[0]


def run_all(
    models: Sequence[Path],
    data: Path | Array | Sequence[Array] | Mapping[str, Array],
    *,
    sequence: bool = False,
    states: Sequence[tuple[str, str]] = (),
    compiled: Path | None = None,
    columns: Sequence[str] = (),
    any_labels: bool = False,
    finite: bool = True,
    deadline_s: float,
    on_progress: Progress | None = None,
) -> tuple[ModelRun, ...]:
    """Run models with the same inputs and outputs on the same data, in one child process.

    `inputs` of every run are those of the first model. Other arguments and errors as in `run`.

    Args:
        states: (input, output) by name, where the models' files do not say them.
        columns: names of arrays of the data to return beside the outputs.
        finite: refuse samples with NaN and infinity.
    """
    with worker_session("run") as session:
        for model in models:
            detect.require_tflite(model)
        arrays = session.workdir / "arrays.npz"
        job = EvaluateJob(
            models=tuple(models),
            data=_as_file(data, session.workdir / "data.npz"),
            arrays=arrays,
            sequence=sequence,
            compiled=compiled,
            states=tuple(states),
            columns=tuple(columns),
            any_labels=any_labels,
            finite=finite,
        )
        result = session.run(job, subject=models[0], deadline_s=deadline_s, on_progress=on_progress)
        with np.load(arrays, allow_pickle=False) as loaded:
            return _runs(result, {name: loaded[name] for name in loaded.files}, columns)


def _runs(
    result: EvaluateResult, arrays: Mapping[str, Array], columns: Sequence[str]
) -> tuple[ModelRun, ...]:
    return tuple(
        ModelRun(
            info=info,
            inputs=tuple(arrays[f"input_{i}"] for i in range(len(info.inputs))),
            outputs=tuple(arrays[f"run_{number}_output_{i}"] for i in range(len(info.outputs))),
            labels=arrays.get("y"),
            sequences=result.sequences,
            notes=result.notes,
            warnings=result.warnings,
            columns={name: arrays[f"column_{name}"] for name in columns},
        )
        for number, info in enumerate(result.infos)
    )


def _as_file(data: Path | Array | Sequence[Array] | Mapping[str, Array], path: Path) -> Path:
    if isinstance(data, (str, Path)):
        return Path(data)
    if isinstance(data, np.ndarray):
        arrays: dict[str, Array] = {"x": data}
    elif isinstance(data, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in data.items()}
    else:
        arrays = {array_names.POSITION.format(i): np.asarray(array) for i, array in enumerate(data)}
    np.savez(path, **arrays)  # type: ignore[arg-type] # its stub takes **kwds for allow_pickle too
    return path


def dequantized(
    outputs: Sequence[Array], tensors: Sequence[TensorInfo]
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return raw outputs as real values: scale * (integer - zero point); float outputs are unchanged."""
    return tuple(to_real(array, tensor) for array, tensor in zip(outputs, tensors, strict=True))
