"""Quantization-aware training: fine-tune a Keras model with fake-quantized weights and activations."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.progress import Step
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.common import batch_norm, loop, losses
from edgeq_converters.training.common.setup import TrainingSetup, load_setup
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat import initialize, outcome, scoring
from edgeq_converters.training.qat.checkpoints import Checkpoints
from edgeq_converters.training.qat.export import Convert, Exporter, hub_of
from edgeq_converters.training.qat.initialize import Start
from edgeq_converters.training.qat.report import TuningReport
from edgeq_converters.training.qat.scoring import Scorer
from edgeq_converters.training.settings import TrainingSettings
from edgeq_converters.values import Scheme

_BATCH, _RATE, _STEPS = 32, 1e-3, 1000
_CALIBRATION = 300


def tune(
    source: Path,
    output: Path,
    *,
    scheme: Scheme,
    settings: TrainingSettings,
    convert: Convert,
    workdir: Path,
    step: Step,
) -> TuningReport:
    """Write the tuned model to `output` and return the report, with the recipe that converts it.

    Batch normalization is folded first; what cannot be folded is frozen. Training starts from the best
    initialization of post-training quantization: equalized or not, with the ranges of the best calibrator.
    Weights are fake-quantized per output channel, symmetric. Activations are fake-quantized per tensor with
    learned ranges, wherever the float .tflite has a tensor. A part of the training samples, which training
    does not see, selects the best epochs; the integer files of these epochs and of the unchanged model are
    compared on the same part. Where training does not help beyond doubt, `output` is the source itself and
    the recipe is that of a plain conversion.

    Args:
        scheme: `int8` or `int4`.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss, EQ317 training diverged,
            EQ339 the user's loss.
    """
    subject = str(source)
    setup = load_setup(source, settings, step=step)
    held_out = setup.data.held_out
    before = loop.predict(setup.model, held_out)
    fit, selection = scoring.split_for_selection(setup.data.training, seed=settings.seed, subject=subject)
    scorer = Scorer(
        data=selection,
        reference=loop.predict(setup.model, selection),
        head=setup.head,
        by_labels=not settings.distill,
        custom=setup.custom,
    )
    targets, loss = _objective(setup, fit)
    calibration = _calibration_samples(fit, settings.seed)

    tuned = batch_norm.fold(setup.model)
    hub = hub_of(tuned, workdir / "folded.keras", subject)
    bits = 4 if scheme is Scheme.INT4 else 8
    start = initialize.best(tuned, hub, calibration, scorer=scorer, weight_bits=bits, step=step)
    epochs = loop.epochs_for(len(fit), batch=_BATCH, steps=_STEPS, requested=settings.epochs)
    schedule = loop.Schedule(epochs=epochs, rate=_RATE, batch=_BATCH, seed=settings.seed)
    total = schedule.steps(len(fit))
    variables = start.forward.variables
    checkpoints = Checkpoints(start.forward, variables, scorer, steps=total // epochs)
    loop.train(
        start.forward,
        variables,
        fit,
        targets,
        loss=loss,
        schedule=schedule,
        subject=subject,
        advance=step("train with fake quantization", total),
        before_step=checkpoints.before_step,
    )
    checkpoints.before_step(total)

    # An SQNR limit of zero gives 4-bit weights to every operation that has kernels for them, as in training.
    plain = Recipe(scheme=scheme, int4_sqnr_db=0.0, seed=settings.seed)
    exporter = Exporter(convert, calibration, workdir, subject)
    ptq = exporter.convert("ptq", source, plain)
    ptq_scores = scorer.by_sample(exporter.outputs(ptq, selection))
    exports = []
    for checkpoint in checkpoints.best:
        checkpoints.restore(checkpoint)
        exported = exporter.write(f"epoch{checkpoint.epoch}", start, plain)
        scores = scorer.by_sample(exporter.outputs(exported, selection))
        exports.append((scores, checkpoint.epoch, exported, loop.predict(tuned, held_out)))
    qat_scores, epoch, qat, as_float = max(
        exports, key=lambda each: (each[0].score().share, -each[0].score().loss)
    )
    outputs = {"ptq": exporter.outputs(ptq, held_out), "qat": exporter.outputs(qat, held_out)}
    # The held-out samples can only speak against the tuned file: they never select it.
    judge = replace(scorer, data=held_out, reference=before)
    unseen = (judge.score(outputs["ptq"]), judge.score(outputs["qat"]))
    reasons = scoring.no_gain(
        (ptq_scores.score(), qat_scores.score()),
        unseen,
        len(selection),
        len(held_out),
        doubtful=not qat_scores.surely_beats(ptq_scores),
    )
    kept = ptq if reasons else qat
    shutil.copyfile(kept.model, output)
    return outcome.report(
        outputs={"float": before, "tuned": as_float, **outputs},
        judge=judge,
        # Training with labels may lead away from the float model's outputs: the labels judge it then.
        follows_float=settings.distill,
        kept="ptq" if reasons else "qat",
        epochs=epochs,
        best_epoch=epoch,
        began=_describe(start),
        recipe=kept.recipe,
        notes=(*setup.data.notes, *reasons),
    )


def _objective(setup: TrainingSetup, data: LabelledData) -> tuple[list[npt.NDArray[Any]], losses.Loss]:
    """Return targets and loss: labels and the float model's outputs, the outputs alone, or the user's."""
    targets = setup.targets(data)
    if setup.distill or setup.custom is not None:
        return targets, setup.loss
    return [*targets, *loop.predict(setup.model, data)], losses.by_both(setup.head)


def _calibration_samples(data: LabelledData, seed: int) -> LabelledData:
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[:_CALIBRATION]))


def _describe(start: Start) -> str:
    return f"{'equalized' if start.equalized else 'not equalized'}, {start.calibrator} ranges"
