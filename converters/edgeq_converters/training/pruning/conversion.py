"""A pruned conversion: prune, re-tune, convert, and compare with the unpruned model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import useless_result
from edgeq_converters.progress import Step
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.common.training_data import FitData
from edgeq_converters.training.pruning import measured
from edgeq_converters.training.pruning.report import (
    BeforeAfter,
    PruningAccuracy,
    PruningLoss,
    PruningReport,
    UnprunedLayer,
)
from edgeq_converters.training.pruning.retuning import Quality, Retuned, quality, retune
from edgeq_converters.training.settings import PruningKind, PruningRequest, TrainingSettings

Done = TypeVar("Done")
Convert = Callable[[Path, Path, Path, Path | None], Done]
"""(source, output, an empty folder, calibration data) -> the result of the conversion."""


def convert(
    source: Path,
    output: Path,
    *,
    request: PruningRequest,
    settings: TrainingSettings,
    by_recipe: Convert[Done],
    unpruned: Convert[Any],
    to_float: Convert[Any],
    calibration: Path | None,
    workdir: Path,
    step: Step,
) -> tuple[Done, PruningReport, tuple[str, ...]]:
    """Write the pruned model's .tflite to `output`.

    Args:
        by_recipe: the requested conversion.
        unpruned: the same for the model before pruning, which may be useless.
        to_float: the conversion to a float32 .tflite.
        calibration: samples that ranges are fitted on; None where none are. Those that measure the accuracy
            are left out.

    Returns:
        The result of `by_recipe`, the report, and notes for the user.

    Raises:
        ConverterError: as `retune` and the conversion; EQ308 when a pruned weight is not zero in the file.
    """
    subject = str(source)
    retuned = retune(source, request, settings, step=step, calibration=calibration)
    fit = _written(retuned.setup.data.calibration, workdir / "pruning-calibration.npz")
    tuned = workdir / "pruned.keras"
    retuned.model.save(tuned)
    try:
        done = by_recipe(tuned, output, _folder(workdir, "pruned"), fit)
        hub = workdir / "pruned-float.tflite"
        to_float(tuned, hub, _folder(workdir, "pruned-float"), None)
    except ConverterError as error:
        if error.subject != str(tuned):
            raise
        raise ConverterError.from_dict({**error.to_dict(), "subject": subject}) from error
    whole = workdir / "unpruned.tflite"
    unpruned(source, whole, _folder(workdir, "unpruned"), fit)
    step("measure", 1)
    models = (Model(data=file.read_bytes(), subject=subject) for file in (whole, output, hub))
    report = _report(request, settings, retuned, *models)
    return done, report, retuned.setup.data.notes


def _written(calibration: FitData | None, path: Path) -> Path | None:
    if calibration is None:
        return None
    arrays = {f"input_{i}": array for i, array in enumerate(calibration.arrays)}
    np.savez(path, **arrays)  # type: ignore[arg-type] # its stub takes allow_pickle there
    return path


def _folder(workdir: Path, name: str) -> Path:
    """Return an empty folder for one conversion, with Keras' naming counters reset as in a new process."""
    folder = workdir / f"{name}-files"
    folder.mkdir()
    keras_graph.reset_names()
    return folder


def _report(
    request: PruningRequest,
    settings: TrainingSettings,
    retuned: Retuned,
    whole: Model,
    pruned: Model,
    hub: Model,
) -> PruningReport:
    before, after = measured.latencies_ns([whole, pruned])
    weights = BeforeAfter(
        before=measured.weight_counts(whole),
        after=measured.weight_counts(pruned),
    )
    held_out = retuned.setup.data.held_out
    outputs = BeforeAfter(before=measured.outputs(whole, held_out), after=measured.outputs(pruned, held_out))
    # Re-tuning with labels may lead away from the unpruned model's outputs: the labels judge it then.
    useless = useless_result(outputs.after, retuned.reference if settings.distill else None, held_out.labels)
    file_before, file_after = (quality(each, retuned.setup) for each in (outputs.before, outputs.after))
    accuracy = PruningAccuracy(
        before=retuned.before.accuracy,
        pruned=retuned.pruned.accuracy,
        tuned=retuned.tuned.accuracy,
        file_before=file_before.accuracy,
        file_after=file_after.accuracy,
        samples=len(held_out),
    )
    zeros_kept = None
    if request.kind is PruningKind.MAGNITUDE:
        zeros_kept = measured.require_zeros_kept(hub, pruned)
    elif weights.after.weights >= weights.before.weights:
        raise ConverterError("EQ316", pruned.subject, "the written file has as many weights as before")
    size = BeforeAfter(before=len(whole.data), after=len(pruned.data))
    compressed = BeforeAfter(
        before=measured.compressed_bytes(whole.data), after=measured.compressed_bytes(pruned.data)
    )
    speedup = before.p50 / after.p50
    return PruningReport(
        kind=request.kind.value,
        ratio=request.ratio,
        epochs=retuned.epochs,
        seed=settings.seed,
        distilled=settings.distill,
        layers=retuned.layers,
        left=tuple(UnprunedLayer(layer=name, reason=why) for name, why in retuned.unpruned.items()),
        parameters=retuned.parameters,
        size_bytes=size,
        compressed_bytes=compressed,
        file_weights=weights,
        latency_ns=BeforeAfter(before=before, after=after),
        speedup=speedup,
        accuracy=accuracy,
        zeros_kept=zeros_kept,
        useless=useless,
        loss=_loss(retuned, file_before, file_after),
        rounds=request.rounds,
        bought=_gain(request.kind, size, compressed, speedup),
    )


def _loss(retuned: Retuned, file_before: Quality, file_after: Quality) -> PruningLoss | None:
    losses = [each.loss for each in (retuned.before, retuned.pruned, retuned.tuned, file_before, file_after)]
    before, pruned, tuned, written_before, written_after = losses
    if before is None or pruned is None or tuned is None or written_before is None or written_after is None:
        return None
    return PruningLoss(
        before=before, pruned=pruned, tuned=tuned, file_before=written_before, file_after=written_after
    )


def _gain(kind: PruningKind, size: BeforeAfter[int], compressed: BeforeAfter[int], speedup: float) -> str:
    """Return in words which of download size and latency the pruning improved."""
    download = f"{compressed.before / compressed.after:.2f}x smaller on the wire (compressed)"
    if kind is PruningKind.MAGNITUDE:
        return (
            f"size on the wire, not latency: {download}; the file stays at {size.after} bytes, and the "
            f"runtime does not skip zeros ({speedup:.2f}x the speed, measured)"
        )
    return (
        f"latency and size: {speedup:.2f}x the speed (measured), {download}, "
        f"the file {size.before / size.after:.2f}x smaller"
    )
