"""Tune a float .tflite without its source: train its weights towards its own outputs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.files import missing
from edgeq_converters.data.samples import Samples, subset, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import postprocessing, tflite_file, validate
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.metrics import useless_result
from edgeq_converters.progress import Step, ignore
from edgeq_converters.quantization import columns
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.sources.load import load_source
from edgeq_converters.training.common import loop, losses, training_data
from edgeq_converters.training.common.heads import Head
from edgeq_converters.training.common.training_data import DataSplit, LabelledData
from edgeq_converters.training.qat import outcome, scoring
from edgeq_converters.training.qat.checkpoints import Checkpoints
from edgeq_converters.training.qat.export import Convert, ExportedModel, Exporter
from edgeq_converters.training.qat.report import TuningReport
from edgeq_converters.training.qat.scoring import Scorer
from edgeq_converters.training.settings import TrainingSettings
from edgeq_converters.training.tflite import student as students
from edgeq_converters.training.tflite import trained_constants
from edgeq_converters.training.tflite.student import Grids, Student
from edgeq_converters.training.tflite.teacher import Teacher, as_written
from edgeq_converters.training.tflite.trained_constants import TrainedConstant
from edgeq_converters.training.tflite.translation import Translation, require_faithful
from edgeq_converters.values import Scheme, notes_of, warnings_of

_BATCH, _RATE, _STEPS = 32, 1e-3, 400
_SCORED_AT_A_TIME = 32
_CALIBRATION = 300
_COMPARED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A float .tflite in its three forms.

    Attributes:
        file: as the user gave it.
        whole: as the conversion loads it: dense float32 weights and built-in operations.
        head: `whole` without the post-processing of detections.
        prepared: `head` with the rewrites for integers.
        notes: remarks for the user.
    """

    file: Model
    whole: Model
    head: Model
    prepared: Model
    notes: tuple[str, ...]


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
    """Write the tuned .tflite to `output` and return the report, with the recipe that converts it.

    The teacher is the model in float. The student is the same function with the grids of a plain conversion,
    whose corrected weights and ranges are the starting point. The loss is the distance of each output, and of
    the scores before a softmax, as a share of its power, slice by slice. Labels only measure. As for a Keras
    model, a part of the training samples selects the best epochs, and their integer files compete with the
    plain conversion. Where training does not help beyond doubt, `output` is a copy of the source.

    Raises:
        ConverterError: EQ104 TensorFlow is missing, EQ2xx the data, EQ304, EQ306, EQ309, EQ320, EQ321 the
            model, EQ317 training diverged, EQ342 an operation cannot be trained through, EQ343 the
            function to train is not the model's.
    """
    subject = str(source)
    raw = training_data.read(settings.training, settings.validation)
    loaded = _load(source.read_bytes(), source, workdir, scheme)
    data = training_data.split(
        raw, loaded.whole.inputs, labels_needed=False, classes=_classes(loaded.whole), seed=settings.seed
    )
    fit, selection = scoring.split_for_selection(data.training, seed=settings.seed, subject=subject)
    step("translate to TensorFlow", 1)
    _require_tensorflow()
    loop.reproducible(settings.seed)
    translation = Translation(loaded.prepared)
    require_faithful(translation, loaded.head, subset(_samples(loaded.head, fit), _COMPARED))
    trained = _trained(source, loaded, workdir)

    calibration = _calibration(fit, settings.seed)
    # An SQNR limit of zero gives 4-bit weights to every operation that has kernels for them, as in training.
    plain = Recipe(scheme=scheme, int4_sqnr_db=0.0, seed=settings.seed)
    exporter = Exporter(convert, calibration, workdir, subject)
    ptq = exporter.convert("ptq", source, plain)
    grids = students.grids_of(
        loaded.prepared, Model.read(ptq.file), except_for=_levelled(loaded.prepared, calibration, plain)
    )
    teacher = Teacher(translation, fit)
    watch = Scorer(data=selection, reference=teacher.targets(selection), head=Head.VALUES, by_labels=False)
    student, began = _best_start(teacher, trained, grids, watch)
    epochs = loop.epochs_for(len(fit), batch=_BATCH, steps=_STEPS, requested=settings.epochs)
    schedule = loop.Schedule(epochs=epochs, rate=_RATE, batch=_BATCH, seed=settings.seed)
    total = schedule.steps(len(fit))
    forward = as_written(student)
    checkpoints = Checkpoints(
        forward, student.variables, watch, steps=total // epochs, batch=_SCORED_AT_A_TIME
    )
    loop.train(
        forward,
        student.variables,
        fit,
        teacher.targets(fit),
        loss=losses.by_teacher(Head.VALUES),
        schedule=schedule,
        subject=subject,
        advance=step("train with fake quantization", total),
        before_step=checkpoints.before_step,
    )
    checkpoints.before_step(total)

    scorer = replace(watch, reference=_outputs(loaded.whole, selection))
    ptq_scores = scorer.by_sample(exporter.outputs(ptq, selection))
    exports = []
    for checkpoint in checkpoints.best:
        checkpoints.restore(checkpoint)
        exported = _export(exporter, f"epoch{checkpoint.epoch}", loaded.file, trained, student, plain, ptq)
        scores = scorer.by_sample(exporter.outputs(exported, selection))
        exports.append((scores, checkpoint.epoch, exported))
    qat_scores, epoch, qat = min(exports, key=lambda each: each[0].score().loss)
    return _concluded(
        (ptq, qat),
        (ptq_scores, qat_scores),
        exporter,
        loaded,
        data,
        output,
        selection=len(selection),
        epochs=epochs,
        best_epoch=epoch,
        began=began,
        notes=(_trained_note(loaded, trained), *loaded.notes, *notes_of(data.notes)),
    )


def _concluded(
    files: tuple[ExportedModel, ExportedModel],
    seen: tuple[scoring.SampleScores, scoring.SampleScores],
    exporter: Exporter,
    loaded: _Source,
    data: DataSplit,
    output: Path,
    *,
    selection: int,
    epochs: int,
    best_epoch: int,
    began: str,
    notes: tuple[str, ...],
) -> TuningReport:
    """Write the better of the files before and after training, and return the report."""
    ptq, qat = files
    held_out = data.held_out
    before = _outputs(loaded.whole, held_out)
    tuned = Model(data=qat.model.read_bytes(), subject=loaded.file.subject)
    outputs = {"ptq": exporter.outputs(ptq, held_out), "qat": exporter.outputs(qat, held_out)}
    judge = Scorer(data=held_out, reference=before, head=Head.VALUES, by_labels=False)
    reasons = scoring.no_gain(
        (seen[0].score(), seen[1].score()),
        (judge.score(outputs["ptq"]), judge.score(outputs["qat"])),
        selection,
        len(held_out),
        doubtful=not seen[1].surely_beats(seen[0]),
    )
    as_float = _outputs(tuned, held_out)
    if not reasons and (lost := useless_result(as_float, before, None)):
        # The conversion of the tuned file is judged by the tuned file in float.
        reasons = (
            f"the tuned weights are of use within the learned ranges only ({lost}): the model is unchanged",
        )
    kept = ptq if reasons else qat
    shutil.copyfile(kept.model, output)
    return outcome.report(
        outputs={"float": before, "tuned": as_float, **outputs},
        judge=judge,
        follows_float=True,
        kept="ptq" if reasons else "qat",
        epochs=epochs,
        best_epoch=best_epoch,
        began=began,
        recipe=kept.recipe,
        notes=notes,
        warnings=(*reasons, *warnings_of(data.notes)),
    )


def _require_tensorflow() -> None:
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise missing("TensorFlow") from error


def _load(data: bytes, source: Path, workdir: Path, scheme: Scheme) -> _Source:
    file = Model(data=data, subject=str(source))
    validate.require_not_compiled(file)
    loaded = load_source(source, workdir, announce=ignore_step)
    validate.require_convertible(loaded.model, scheme=scheme)
    head = postprocessing.detach(loaded.model).model
    if not any(tensor.dtype == "float32" for tensor in head.outputs):
        raise ConverterError(
            "EQ342",
            str(source),
            "no output of the model has real values to train towards",
            got=", ".join(f"{tensor.name} {tensor.dtype}" for tensor in head.outputs),
            hint="end the model before it turns scores into integers",
        )
    return _Source(file=file, whole=loaded.model, head=head, prepared=prepared(head), notes=loaded.notes)


def ignore_step(_what: str) -> None:
    """Take the name of a step, and do nothing."""


def _trained(source: Path, loaded: _Source, workdir: Path) -> tuple[TrainedConstant, ...]:
    """Return the constants to train.

    Raises:
        ConverterError: EQ342 there are none.
    """
    changed = workdir / "changed.tflite"

    def prepare(data: bytes) -> Model:
        changed.write_bytes(data)
        model = load_source(changed, workdir, announce=ignore_step).model
        return prepared(postprocessing.detach(model).model)

    candidates = trained_constants.find(loaded.file, loaded.prepared)
    trained = trained_constants.carried(loaded.file, loaded.prepared, candidates, prepare)
    if not trained:
        raise ConverterError(
            "EQ342",
            str(source),
            "the model has no weights that can be trained in place",
            hint="a conversion fits the integer weights to the float model without training",
        )
    return trained


def _trained_note(loaded: _Source, trained: Sequence[TrainedConstant]) -> str:
    weights = sum(each.values.size for each in trained)
    every = sum(
        int(np.prod(tflite_file.index_list(tensor.shape)))
        for tensor in loaded.prepared.graph.tensors
        if tflite_file.type_name(tensor) == "FLOAT32"
        and tflite_file.is_constant(loaded.prepared.parsed, tensor)
    )
    return f"{len(trained)} constants with {weights} of about {every} weights are trained"


def _classes(model: Model) -> int:
    """Return the number of classes of a model with one output of class scores; else 0."""
    shape = model.outputs[0].shape if len(model.outputs) == 1 else ()
    return shape[1] if len(shape) == 2 and shape[1] > 1 else 0


def _samples(model: Model, data: LabelledData) -> Samples:
    return Samples(inputs=model.inputs, arrays=data.arrays)


def _outputs(model: Model, data: LabelledData) -> list[npt.NDArray[Any]]:
    arrays = run_samples(model, _samples(model, data), advance=ignore)
    return [to_real(array, tensor) for array, tensor in zip(arrays, model.outputs, strict=True)]


def _calibration(data: LabelledData, seed: int) -> LabelledData:
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[:_CALIBRATION]))


def _levelled(model: Model, data: LabelledData, recipe: Recipe) -> frozenset[int]:
    """Return the tensors whose values the conversion divides by the sizes of an output's columns.

    The ranges of these tensors follow from the divided values, so that none is learned.
    """
    levelled = columns.level(model, _samples(model, data), recipe).model
    if levelled is model:
        return frozenset()
    changed: set[int] = set()
    for old, new in zip(model.graph.operators, levelled.graph.operators, strict=True):
        reads = [
            not np.array_equal(
                model.parsed.buffers[model.graph.tensors[one].buffer].data,
                levelled.parsed.buffers[levelled.graph.tensors[other].buffer].data,
            )
            for one, other in zip(old.inputs, new.inputs, strict=True)
            if one >= 0
        ]
        if any(reads) or changed.intersection(tflite_file.index_list(old.inputs)):
            changed.update(tflite_file.index_list(old.outputs))
            changed.update(
                index
                for index in tflite_file.index_list(old.inputs)
                if index >= 0 and tflite_file.is_constant(model.parsed, model.graph.tensors[index])
            )
    return frozenset(changed)


def _best_start(
    teacher: Teacher, trained: Sequence[TrainedConstant], grids: Grids, watch: Scorer
) -> tuple[Student, str]:
    """Return the student with the better start, and the start in words: converted weights, or the file's."""
    converted = {
        each.buffer: each.places[0].back(grids.converted[each.places[0].index], each.values.shape)
        for each in trained
        if each.places[0].index in grids.converted
    }
    candidates = []
    for starts, name in ((converted, "the converted weights"), ({}, "the float weights")):
        student = Student(teacher.translation, trained, grids, starts, forward=teacher.forward)
        made = loop.outputs_of(loop.compiled(as_written(student)), watch.data, _SCORED_AT_A_TIME)
        candidates.append((watch.score(made).loss, student, name))
    _, student, name = min(candidates, key=lambda each: each[0])
    return student, name


def _export(
    exporter: Exporter,
    name: str,
    file: Model,
    trained: Sequence[TrainedConstant],
    student: Student,
    plain: Recipe,
    ptq: ExportedModel,
) -> ExportedModel:
    """Write the file with the trained weights on their grids, and convert it by the learned ranges."""
    path = exporter.path(f"{name}-tuned.tflite")
    path.write_bytes(trained_constants.written(file, student.snapped(), trained))
    recipe = replace(
        plain,
        ranges=student.learned_ranges(),
        calibrator="minmax",  # only for tensors without a learned range
        bias_correction=Switch.OFF,  # training already compensates for these errors
        equalization=Switch.OFF,
        tail=ptq.tail,
    )
    return exporter.convert(name, path, recipe)
