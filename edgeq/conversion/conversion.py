"""One conversion: arguments checked, the worker run, and the output replaced only by a verified file."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.conversion.families import ERRORS, Progress
from edgeq.conversion.lineage import lineage, made_of
from edgeq.conversion.outputs import check_paths, require_writable, unwritable
from edgeq.conversion.recipes import checked, recipe_of
from edgeq.conversion.tuning import check_trainable, with_pruning
from edgeq.files import sha256_of, write_atomic
from edgeq_converters.errors import ConverterError, translated
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources import detect
from edgeq_converters.values import ModelInfo, OpKind, OpLine, Scheme, TensorInfo
from edgeq_converters.worker.client import run_worker

if TYPE_CHECKING:
    from edgeq.conversion.in_memory_samples import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A model file that was written and verified.

    Attributes:
        io: the type of inputs and outputs that was asked for: `int8` or `float32`.
        op_report: one line an operation of the written file.
        backend: the library that quantized, `none` for float32.
        tools: versions of the libraries that took part.
        lineage: what the file was made of, as `edgeq.lineage/1`: digests of source, data and recipe, the
            seed, tools and machine.
        edgetpu: what an Edge TPU would take of it (the `summary` of edgeq.conversion.edgetpu).
        parity: how far the float .tflite is from the source on samples (`sqnr_db`, `max_abs_difference`);
            None where the source is a .tflite.
        notes: what the user should be told.
        pruning: what was pruned and what it bought, with `bought` in words; None without pruning.
    """

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
    lineage: Mapping[str, Any]
    edgetpu: Mapping[str, Any]
    parity: Mapping[str, Any] | None
    backend: str
    notes: tuple[str, ...]
    pruning: Mapping[str, Any] | None = None

    def ops_by_kind(self) -> dict[str, int]:
        """Return how many operations are integer, float and mixed."""
        return {kind.value: sum(line.kind is kind for line in self.op_report) for kind in OpKind}


def convert(
    source: Path,
    output: Path,
    *,
    recipe: Recipe | None = None,
    scheme: str | None = None,
    calibration: Calibration | None = None,
    histograms: Path | None = None,
    io: str | None = None,
    prune: str | None = None,
    training: Path | None = None,
    validation: Path | None = None,
    epochs: int | None = None,
    distill: bool = False,
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
) -> Conversion:
    """Convert a model and write it to `output`; `output` is untouched unless everything succeeded.

    Args:
        source: a .keras, .h5 or float .tflite file, or a SavedModel folder.
        recipe: everything that decides what the model becomes; or else
        scheme: `float32`, `float16`, `dynamic`, `int8`, `int16x8`, `int8-mixed` or `int4`, with the recipe's
            defaults otherwise.
        calibration: representative samples, needed for a scheme of integers: a path (.npz, .npy, folder of
            images), an array, a mapping of arrays by input name, or any iterable of samples (see
            given_samples.py).
        histograms: what `calibrate` wrote for this model; then `calibration` is not needed for ranges.
        io: inputs and outputs of an integer model: `int8` or `float32`.
        prune: `magnitude:RATIO` or `channels:RATIO`, Keras 3 models only; re-tunes with
        training: a .npz with `x` and `y` (docs/data.md), and says the accuracy on
        validation: the same kind of file; a fifth of the training data is held out for it otherwise.
        epochs: of re-tuning; their number follows from the size of the data otherwise.
        distill: re-tune towards the unpruned model's outputs; needs no labels.
        on_progress: called with (step, done, total).
        deadline_s: how long the worker may take.

    Raises:
        UsageError: an unknown scheme or an impossible combination.
        MissingExtra: TensorFlow or LiteRT is not installed.
        DataError: EQ2xx, the calibration data.
        ModelError: EQ3xx, the model or its conversion.
    """
    started_s = time.monotonic()
    source, output = Path(source), Path(output)
    recipe = with_pruning(
        checked(recipe, subject="recipe") if recipe else recipe_of(scheme, io=io),
        prune=prune,
        epochs=epochs,
        distill=distill,
    )
    check_paths(source, output)
    with (
        translated(ERRORS),
        tempfile.TemporaryDirectory(prefix="edgeq-convert-", ignore_cleanup_errors=True) as folder,
    ):
        workdir = Path(folder)
        detect.detect(source)
        require_writable(output)
        if recipe.prune is not None:
            check_trainable(source, training, what="--prune")
        data = _given(calibration, histograms, recipe.scheme, workdir, str(source))
        histograms = Path(histograms) if histograms and recipe.scheme.needs_ranges else None
        inputs = made_of(
            source,
            {"calibration": data, "histograms": histograms, "training": training, "validation": validation},
            lasting=isinstance(calibration, (str, os.PathLike)),
        )
        made = workdir / "converted.tflite"
        result = run_worker(
            {
                "verb": "convert",
                "source": str(source),
                "output": str(made),
                "recipe": recipe.to_dict(),
                "data": str(data) if data else None,
                "histograms": str(histograms) if histograms else None,
                "training": str(training) if training else None,
                "validation": str(validation) if validation else None,
                "workdir": str(workdir),
            },
            workdir=workdir,
            subject=str(source),
            deadline_s=deadline_s,
            on_progress=on_progress,
        )
        content = made.read_bytes()
        try:
            write_atomic(output, content)
        except OSError as error:
            raise unwritable(output, error.strerror or str(error)) from error
    return _conversion(output, len(content), recipe, result, time.monotonic() - started_s, inputs)


def _conversion(
    output: Path,
    size_bytes: int,
    recipe: Recipe,
    result: Mapping[str, Any],
    seconds: float,
    inputs: Mapping[str, Any],
) -> Conversion:
    info = ModelInfo.from_dict(result["info"])
    return Conversion(
        path=output,
        sha256=sha256_of(output),
        size_bytes=size_bytes,
        scheme=recipe.scheme,
        io=recipe.io,
        recipe=recipe,
        op_report=info.ops,
        inputs=info.inputs,
        outputs=info.outputs,
        seconds=seconds,
        tools=result["tools"],
        backend=result["backend"],
        notes=tuple(result["notes"]),
        pruning=result.get("pruning"),
        parity=result["parity"],
        edgetpu=result["edgetpu"],
        lineage=lineage(
            inputs, recipe=recipe.to_dict(), tools=result["tools"], backend=result["backend"], output=output
        ),
    )


def _given(
    calibration: Calibration | None, histograms: Path | None, scheme: Scheme, workdir: Path, subject: str
) -> Path | None:
    if not scheme.needs_ranges:
        return None
    if calibration is None:
        if histograms is not None:
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
