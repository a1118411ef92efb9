"""Convert a model: check the arguments, run the worker, and replace the output by a verified file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.conversion.lineage import Inputs, Lineage, digest_inputs, lineage_of
from edgeq.conversion.losses import Loss, source_of
from edgeq.conversion.recipes import checked, recipe_of
from edgeq.conversion.training import check_trainable, with_pruning
from edgeq.converters_client import ConverterError, Progress, worker_session
from edgeq.errors import UsageError
from edgeq.files import obstacle, sha256_of, write_atomic
from edgeq.kernels import shipped_tables, table_for
from edgeq.store import Recorder, Store, recording_store
from edgeq_converters.edgetpu.values import EdgeTpuSummary
from edgeq_converters.kernels import Target
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources import detect
from edgeq_converters.training.loss_source import LossSource
from edgeq_converters.training.pruning.report import PruningReport
from edgeq_converters.values import Claim, FloatPart, OpKind, OpLine, Parity, Scheme, TensorInfo
from edgeq_converters.worker.protocol import ConvertJob, ConvertResult

if TYPE_CHECKING:
    from edgeq.conversion.in_memory_samples import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A converted and verified model file.

    Attributes:
        io: type of inputs and outputs, for example `int8` or `float32`.
        op_report: one line for each operation of the written file.
        seconds: duration of the conversion.
        tools: {package: version} of the libraries that took part.
        lineage: what the file was made of, with digests of source, data and recipe.
        edgetpu: which part of the file an Edge TPU would run.
        parity: how far the float .tflite is from the source; None where the source is a .tflite.
        backend: the library that quantized, `none` for float32.
        notes: what was done, for the user.
        warnings: what may be wrong with the result.
        pruning: what was pruned and what it gained; None without pruning.
        claim: what the file reaches on samples that it was not fitted on; None where none were held out.
        float_part: the float operations of an integer model and what they cost; None where all are integer.
    """

    source: Path
    path: Path
    sha256: str
    size_bytes: int
    scheme: Scheme
    io: str
    recipe: Recipe
    op_report: tuple[OpLine, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    seconds: float
    tools: Mapping[str, str]
    lineage: Lineage
    edgetpu: EdgeTpuSummary
    parity: Parity | None
    backend: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    pruning: PruningReport | None = None
    claim: Claim | None = None
    float_part: FloatPart | None = None

    def ops_by_kind(self) -> dict[str, int]:
        """Return {kind: number of operations} for integer, float and mixed operations."""
        return {kind.value: sum(line.kind is kind for line in self.op_report) for kind in OpKind}

    def to_json(self) -> dict[str, Any]:
        """Return the conversion as `edgeq.convert/1`, for `--json` and the store."""
        return {
            "source": str(self.source),
            "path": str(self.path),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "scheme": self.scheme.value,
            "io": self.io,
            "recipe": self.recipe.to_dict(),
            "op_report": {
                "total": len(self.op_report),
                **self.ops_by_kind(),
                "ops": [asdict(line) for line in self.op_report],
            },
            "inputs": [asdict(tensor) for tensor in self.inputs],
            "outputs": [asdict(tensor) for tensor in self.outputs],
            "pruning": None if self.pruning is None else self.pruning.to_json(),
            "backend": self.backend,
            "tools": dict(self.tools),
            "parity": None if self.parity is None else asdict(self.parity),
            "claim": None if self.claim is None else asdict(self.claim),
            "float_part": None if self.float_part is None else asdict(self.float_part),
            "edgetpu": asdict(self.edgetpu),
            "lineage": self.lineage.to_json(),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }


def convert(
    source: Path,
    output: Path,
    *,
    recipe: Recipe | None = None,
    scheme: str | None = None,
    calibration: Calibration | None = None,
    histograms: Path | None = None,
    io: str | None = None,
    allow_float: bool | None = None,
    prune: str | None = None,
    training: Path | None = None,
    validation: Path | None = None,
    epochs: int | None = None,
    distill: bool = False,
    loss: Loss | LossSource | None = None,
    strict: bool = False,
    measure_float: bool = True,
    machine: str | None = None,
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
    store: Recorder | None = None,
) -> Conversion:
    """Convert a model, write it to `output` and record the run; a failure leaves `output` unchanged.

    Args:
        source: a .keras, .h5, .onnx, .pt2 or float .tflite file, or a SavedModel folder.
        recipe: every setting that decides the result. Give either a recipe or a scheme.
        scheme: `float32`, `float16`, `dynamic`, `int8`, `int16x8`, `int8-mixed` or `int4`, with the default
            recipe.
        calibration: representative samples, required for integer schemes: a path (.npz, .npy, folder of
            images), an array (samples first), a mapping of arrays by input name, or any iterable of samples
            (see in_memory_samples.py).
        histograms: written by `calibrate` for this model; they replace `calibration`.
        io: type of inputs and outputs of an integer model: `int8`, `uint8`, `int16` or `float32`;
            `uint8,float32` names both.
        allow_float: under a full-integer `scheme`, operations without an integer kernel stay float, in
            place of EQ307.
        prune: `magnitude:RATIO` or `channels:RATIO,OPTION=VALUE` (docs/training.md), Keras 3 models only;
            needs `training`.
        training: a .npz with `x` and `y` (docs/data.md).
        validation: data of the same form to measure accuracy on; None holds out a fifth of the training data.
        epochs: of re-tuning; None derives the number from the size of the data.
        distill: re-tune towards the unpruned model's outputs; needs no labels.
        loss: of the training: `mse`, `mae`, `huber`, `binary_crossentropy`, `categorical_crossentropy`,
            `sparse_categorical_crossentropy`, `FILE.py:FUNCTION`, `MODULE:FUNCTION`, or a function
            (targets, outputs) of a file; None is the cross-entropy of a classifier (docs/training.md).
        strict: EQ334 for a result that does not follow its float model, in place of a note.
        measure_float: time the operations of an integer model that stay float (`float_part`).
        machine: a class of machines (`x86_64`) or a device that is to run the model. Before the calibration,
            its kernel table is asked for every operation: a missing kernel is EQ340, slow ones are a warning.
        on_progress: called with (step, done, total).
        deadline_s: the worker is killed after this time.
        store: where to record the run and its lineage: None is the store of the default workspace,
            `UNRECORDED` keeps no record.

    Raises:
        UsageError: an unknown scheme or an impossible combination.
        MissingExtra: TensorFlow or LiteRT is not installed.
        DataError: EQ2xx, the calibration data.
        ModelError: EQ3xx, the model or its conversion.
        StoreError: the model was written, but the run cannot be recorded.
    """
    started_s = time.monotonic()
    source, output = Path(source), Path(output)
    recipe = (
        checked(recipe, subject="recipe") if recipe else recipe_of(scheme, io=io, allow_float=allow_float)
    )
    trained_by = source_of(loss or recipe.loss)
    recipe = with_pruning(recipe, prune=prune, epochs=epochs, distill=distill, loss=trained_by)
    check_paths(output, source, calibration, histograms, training, validation)
    target = _target(machine, store)
    with worker_session("convert") as session:
        detect.detect(source)
        require_writable(output)
        if recipe.prune is not None:
            check_trainable(source, training, option="--prune")
        data = _calibration_file(calibration, histograms, recipe.scheme, session.workdir, str(source))
        histograms = Path(histograms) if histograms and recipe.scheme.needs_ranges else None
        inputs = digest_inputs(
            source,
            {
                "calibration": data,
                "histograms": histograms,
                "training": training,
                "validation": validation,
                "loss": None if trained_by is None else trained_by.file,
            },
            lasting=isinstance(calibration, (str, os.PathLike)),
        )
        converted = session.workdir / "converted.tflite"
        job = ConvertJob(
            source=source,
            output=converted,
            recipe=recipe,
            data=data,
            histograms=histograms,
            training=Path(training) if training else None,
            validation=Path(validation) if validation else None,
            loss=trained_by,
            strict=strict,
            measure_float=measure_float,
            target=target,
            workdir=session.workdir,
        )
        result = session.run(job, subject=source, deadline_s=deadline_s, on_progress=on_progress)
        content = converted.read_bytes()
        try:
            write_atomic(output, content)
        except OSError as error:
            raise unwritable(output, error.strerror or str(error)) from error
    warnings = list(result.warnings)
    if calibration is not None and recipe.scheme is Scheme.FLOAT32:
        warnings.append(f"--calibration was not used: {recipe.scheme} needs none")
    if machine is not None and target is None:
        known = ", ".join(sorted(each.machine for each in shipped_tables()))
        warnings.append(
            f"nothing is known of the kernels of {machine!r}; there are tables of {known}, "
            "and `edgeq devices kernels` measures a machine"
        )
    seconds = time.monotonic() - started_s
    conversion = _conversion(source, output, len(content), recipe, result, warnings, seconds, inputs)
    with recording_store(store) as records:
        records.record_run("convert", conversion.path.stem, conversion.to_json())
    return conversion


def _target(machine: str | None, store: Recorder | None) -> Target | None:
    """Return the machine that a model is for, with its kernel table; None without one."""
    if machine is None:
        return None
    with recording_store(store if isinstance(store, Store) else None) as records:
        table = table_for(machine, records)
    return None if table is None else Target(name=machine, table=table)


def _conversion(
    source: Path,
    output: Path,
    size_bytes: int,
    recipe: Recipe,
    result: ConvertResult,
    warnings: list[str],
    seconds: float,
    inputs: Inputs,
) -> Conversion:
    if result.tail is not None:  # its choice took time measurements: named in the recipe, it repeats
        recipe = replace(recipe, tail=result.tail)
    return Conversion(
        source=source,
        path=output,
        sha256=sha256_of(output),
        size_bytes=size_bytes,
        scheme=recipe.scheme,
        io=recipe.io,
        recipe=recipe,
        op_report=result.info.ops,
        inputs=result.info.inputs,
        outputs=result.info.outputs,
        seconds=seconds,
        tools=result.tools,
        backend=result.backend,
        notes=result.notes,
        warnings=tuple(warnings),
        pruning=result.pruning,
        parity=result.parity,
        claim=result.claim,
        float_part=result.float_part,
        edgetpu=result.edgetpu,
        lineage=lineage_of(
            inputs, recipe=recipe.to_dict(), tools=result.tools, backend=result.backend, output=output
        ),
    )


def _calibration_file(
    calibration: Calibration | None, histograms: Path | None, scheme: Scheme, workdir: Path, subject: str
) -> Path | None:
    if calibration is None:
        if histograms is not None or not scheme.needs_ranges:
            return None
        raise ConverterError(
            "EQ209",
            subject,
            f"the scheme {scheme} needs calibration data",
            expected="100 to 500 representative samples",
            got="none",
            hint="add --calibration C.npz, or use --scheme dynamic, which needs none",
        )
    from edgeq.conversion.in_memory_samples import as_file

    return as_file(calibration, workdir)


def check_paths(output: Path, *inputs: object) -> None:
    """Check that the output is not the source or another input.

    Args:
        inputs: the source first; what is not a path, such as an array, is left out.

    Raises:
        UsageError: they are the same file.
    """
    for number, given in enumerate(inputs):
        if not isinstance(given, (str, os.PathLike)):
            continue
        file = Path(given)
        if output.exists() and file.exists() and output.samefile(file):
            what = f"the input {file}" if number else "the source"
            raise UsageError(str(output), f"the output would replace {what}", hint="give another -o")


def require_writable(output: Path) -> None:
    """Check that the output can be written, before any work is done.

    Raises:
        ConverterError: EQ311.
    """
    if (why := obstacle(output)) is not None:
        raise unwritable(output, why)


def unwritable(output: Path, why: str) -> ConverterError:
    """Return the error for an output that cannot be written."""
    return ConverterError("EQ311", str(output), f"cannot be written: {why}", hint="give another -o")
