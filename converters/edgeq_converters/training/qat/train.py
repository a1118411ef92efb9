"""Training with fake quantization: a Keras model in, one out whose weights and ranges suit integers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.progress import Step
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.common import batch_norm, loop, losses
from edgeq_converters.training.common.finalists import Watcher
from edgeq_converters.training.common.setup import Ready, make_ready
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat import initialize, scoring
from edgeq_converters.training.qat.candidates import Convert, Maker, hub_of
from edgeq_converters.training.qat.initialize import Start
from edgeq_converters.training.qat.job import TuningJob, TuningReport
from edgeq_converters.training.qat.scoring import Judge, Score
from edgeq_converters.values import Scheme

_BATCH, _RATE, _STEPS = 32, 1e-3, 1000
_CALIBRATION = 300


def tune(
    source: Path, output: Path, *, job: TuningJob, convert: Convert, workdir: Path, step: Step
) -> TuningReport:
    """Write the tuned model to `output` and return what came of it, with the recipe that converts it.

    Batch normalization is folded first (what cannot be folded is frozen), and training starts from the best
    that conversion alone does: equalized or not, with the ranges of the best calibrator. Weights are
    fake-quantized per output channel, symmetric; activations per tensor, with learned ranges, where the float
    .tflite has a tensor. A part of the training samples, which training does not see, picks the best epochs;
    their integer files and that of the model as it was decide on the same part. Where training brought
    nothing, `output` is the source itself and the recipe that of a plain conversion.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss, EQ317 training diverged.
    """
    subject = str(source)
    ready = make_ready(source, job, step=step)
    held_out = ready.data.held_out
    before = loop.predict(ready.model, held_out)
    fit, spared = scoring.spared(ready.data.training, seed=job.seed)
    wanted = loop.predict(ready.model, spared)
    judge = Judge(data=spared, wanted=wanted, head=ready.head, by_labels=not job.distill)
    targets, loss = _lesson(ready, fit)
    calibrating = _some(fit, job.seed)

    tuned = batch_norm.fold(ready.model)
    hub = hub_of(tuned, workdir / "folded.keras", subject)
    bits = 4 if job.scheme is Scheme.INT4 else 8
    began = initialize.best(
        tuned, hub, calibrating, judge=judge, weight_bits=bits, subject=subject, step=step
    )
    epochs = loop.epochs_for(len(fit), batch=_BATCH, steps=_STEPS, wanted=job.epochs)
    plan = loop.Plan(epochs=epochs, rate=_RATE, batch=_BATCH, seed=job.seed)
    total = plan.steps(len(fit))
    variables = began.forward.variables
    watcher = Watcher(began.forward, variables, judge, steps=total // epochs)
    loop.train(
        began.forward,
        variables,
        fit,
        targets,
        loss=loss,
        plan=plan,
        subject=subject,
        advance=step("train with fake quantization", total),
        before_step=watcher.look,
    )
    watcher.look(total)

    plain = Recipe(scheme=job.scheme, int4_sqnr_db=0.0, seed=job.seed)  # as training had it: all that can
    maker = Maker(convert, calibrating, workdir, subject)
    ptq = maker.convert("ptq", source, plain)
    at_ptq = judge.score(maker.outputs(ptq, spared))
    tried = []
    for state in watcher.states:
        watcher.restore(state)
        candidate = maker.write(f"epoch{state.epoch}", began, plain)
        score = judge.score(maker.outputs(candidate, spared))
        tried.append((score, state.epoch, candidate, loop.predict(tuned, held_out)))
    at_qat, epoch, qat, as_float = max(tried, key=lambda each: (each[0].share, -each[0].loss))
    better = at_qat.beats(at_ptq)
    kept = qat if better else ptq
    shutil.copyfile(kept.model, output)

    outputs = {"ptq": maker.outputs(ptq, held_out), "qat": maker.outputs(qat, held_out)}
    everything = {"float": before, "tuned": as_float, **outputs}
    classes = ready.classes(before)
    return TuningReport(
        epochs=epochs,
        best_epoch=epoch,
        kept="qat" if better else "ptq",
        began=_began(began),
        tensors=len(kept.recipe.ranges),
        accuracy={name: loop.accuracy(values, held_out.labels) for name, values in everything.items()},
        agreement={name: loop.accuracy(values, classes) for name, values in outputs.items()},
        samples=len(held_out),
        recipe=kept.recipe.to_dict(),
        notes=(
            *ready.data.notes,
            *(() if better else (_nothing(at_ptq, at_qat, len(spared)),)),
        ),
    )


def _lesson(ready: Ready, data: LabelledData) -> tuple[list[npt.NDArray[Any]], losses.Loss]:
    """Return what training aims at: the labels and the float model's outputs, or these alone."""
    targets = ready.targets(data)
    if ready.distill:
        return targets, ready.loss
    return [*targets, *loop.predict(ready.model, data)], losses.by_both(ready.head)


def _some(data: LabelledData, seed: int) -> LabelledData:
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[:_CALIBRATION]))


def _began(began: Start) -> str:
    how = "equalized" if began.equalized else "as it was"
    return f"{how}, {began.calibrator} ranges"


def _nothing(ptq: Score, qat: Score, count: int) -> str:
    return (
        f"tuning brought nothing on {count} training samples spared for this choice ({qat} in integers after"
        f" it, {ptq} without): the model was kept as it was, with the recipe of a plain conversion"
    )
