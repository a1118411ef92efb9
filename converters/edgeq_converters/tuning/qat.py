"""Training with fake quantization: a Keras model in, one out whose weights and ranges suit integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters import calibration, inference, tflite_file
from edgeq_converters.loading import load_source
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.samples import Samples, to_real
from edgeq_converters.tuning import (
    batch_norm,
    keras_file,
    keras_graph,
    losses,
    points,
    training,
    training_data,
)
from edgeq_converters.tuning.fake_quant import LearnedRange
from edgeq_converters.tuning.heads import Head, head_of, require_classes
from edgeq_converters.tuning.job import TuningJob, TuningReport
from edgeq_converters.tuning.points import Points
from edgeq_converters.tuning.quantized_forward import QuantizedForward, fixed_activation
from edgeq_converters.tuning.training_data import LabelledData
from edgeq_converters.values import Scheme

Step = Callable[[str, int], Callable[[int], None]]
Convert = Callable[[Path, Path, Recipe, Path, Path], Any]
"""(source, output, recipe, calibration data, an empty folder)."""
_BATCH, _RATE, _STEPS = 32, 5e-4, 1000
_CALIBRATION = 300


def tune(
    source: Path, output: Path, *, job: TuningJob, convert: Convert, workdir: Path, step: Step
) -> TuningReport:
    """Write the tuned model to `output` and return what came of it, with the recipe that converts it.

    Batch normalization is folded first (what cannot be folded is frozen). Weights are fake-quantized per
    output channel, symmetric; activations per tensor, with learned ranges, where the float .tflite has a
    tensor. The weights that are written lie on their grids.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss, EQ317 training diverged.
    """
    subject = str(source)
    keras_graph.require_keras3(source)
    raw = training_data.read(job.training, job.validation)
    step("load with TensorFlow", 1)
    model = keras_graph.load(source)
    training.reproducible(job.seed)
    head = head_of(model) if job.distill else require_classes(model, subject=subject)
    classes = 0 if head is Head.VALUES else int(model.outputs[0].shape[-1])
    data = training_data.split(raw, model, labels_needed=not job.distill, classes=classes, seed=job.seed)
    before = training.predict(model, data.held_out)
    targets = _targets(model, data.training, distill=job.distill)

    tuned = batch_norm.fold(model)
    hub = _hub(tuned, workdir / "folded.keras", subject)
    found = points.find(tuned, hub, data.training, subject=subject)
    calibrating = _some(data.training, job.seed)
    ranges = _calibrated(hub, found, calibrating, subject, step)
    forward = QuantizedForward(tuned, found, ranges, weight_bits=4 if job.scheme is Scheme.INT4 else 8)
    epochs = training.epochs_for(len(data.training), batch=_BATCH, steps=_STEPS, wanted=job.epochs)
    plan = training.Plan(epochs=epochs, rate=_RATE, batch=_BATCH, seed=job.seed)
    training.train(
        forward,
        forward.variables,
        data.training,
        targets,
        loss=losses.by_teacher(head) if job.distill else losses.by_labels(head),
        plan=plan,
        subject=subject,
        advance=step("train with fake quantization", plan.steps(len(data.training))),
    )
    forward.snap()
    keras_file.write(tuned, output)
    written = points.find(
        tuned, _hub(tuned, workdir / "tuned-again.keras", subject), data.training, subject=subject
    )

    plain = Recipe(scheme=job.scheme, seed=job.seed)
    recipe = replace(
        plain,
        ranges=_named(tuned, found, written, ranges),
        calibrator="minmax",  # of what has no learned range: outputs that the kernels fix
        bias_correction=Switch.OFF,  # the training has seen the errors that these would correct
        equalization=Switch.OFF,
    )
    files = _converted(source, output, plain, recipe, calibrating, convert, workdir)
    outputs = {name: _outputs(file, data.held_out, subject) for name, file in files.items()}
    outputs["tuned"] = training.predict(tuned, data.held_out)
    labels = data.held_out.labels
    accuracy = {name: training.accuracy(values, labels) for name, values in outputs.items()}
    chosen = None if head is Head.VALUES else np.argmax(before[0], axis=-1)
    return TuningReport(
        epochs=epochs,
        tensors=len(recipe.ranges),
        accuracy={"float": training.accuracy(before, labels), **accuracy},
        agreement={name: training.accuracy(outputs[name], chosen) for name in files},
        samples=len(data.held_out),
        recipe=recipe.to_dict(),
        notes=(*data.notes, *_remarks(accuracy)),
    )


def _targets(model: Any, data: LabelledData, *, distill: bool) -> list[npt.NDArray[Any]]:
    if distill:
        return training.predict(model, data)
    if data.labels is None:
        raise TypeError("labels were checked before")
    return [data.labels]


def _hub(model: Any, path: Path, subject: str) -> bytes:
    model.save(path)
    folder = path.with_suffix("")
    folder.mkdir()
    keras_graph.forget_names()
    loaded = load_source(path, folder, announce=lambda _what: None)
    return tflite_file.normalized(loaded.data, subject=subject)


def _some(data: LabelledData, seed: int) -> LabelledData:
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[:_CALIBRATION]))


def _calibrated(
    hub: bytes, found: Points, data: LabelledData, subject: str, step: Step
) -> dict[str, LearnedRange]:
    """Return the ranges that training starts from: those with the least error on the grid."""
    inputs, _ = tflite_file.inputs_and_outputs(tflite_file.parse(hub, subject=subject))
    samples = Samples(inputs=inputs, arrays=data.arrays)
    histograms = calibration.observe(hub, samples, subject=subject, advance=step("calibrate", len(samples)))
    ranges = calibration.ranges(hub, histograms, calibrator="mse", subject=subject)
    return {
        key: LearnedRange(
            min(float(ranges[name]["min"].min()) for name in names),
            max(float(ranges[name]["max"].max()) for name in names),
        )
        for key, names in found.names.items()
    }


def _named(
    model: Any, trained: Points, written: Points, ranges: dict[str, LearnedRange]
) -> tuple[tuple[str, float, float], ...]:
    """Return (tensor, low, high) of every learned range; outputs of softmax and its like have none.

    The converter names a tensor after what it fused into it, and a bias that is zero is not fused: the names
    are those of the written model, the ranges those of the same places in the trained one.
    """
    fixed = {
        id(symbol) for call in keras_graph.calls(model) if fixed_activation(call) for symbol in call.outputs
    }
    learned: dict[str, tuple[float, float]] = {}
    for symbol, key in written.key_of.items():
        if symbol not in fixed and symbol in trained.key_of:
            low, high = (float(np.asarray(end)) for end in ranges[trained.key_of[symbol]].ends())
            for name in written.names[key]:
                learned.setdefault(name, (low, high))
    return tuple((name, low, high) for name, (low, high) in sorted(learned.items()))


def _converted(
    source: Path,
    tuned: Path,
    plain: Recipe,
    recipe: Recipe,
    data: LabelledData,
    convert: Convert,
    workdir: Path,
) -> dict[str, Path]:
    samples = workdir / "calibration.npz"
    np.savez(samples, **{f"input_{i}": array for i, array in enumerate(data.arrays)})  # type: ignore[arg-type]
    files = {}
    for name, model, used in (("ptq", source, plain), ("qat", tuned, recipe)):
        folder = workdir / f"{name}-files"
        folder.mkdir()
        files[name] = workdir / f"{name}.tflite"
        keras_graph.forget_names()
        convert(model, files[name], used, samples, folder)
    return files


def _outputs(file: Path, data: LabelledData, subject: str) -> list[npt.NDArray[Any]]:
    content = file.read_bytes()
    inputs, outs = tflite_file.inputs_and_outputs(tflite_file.parse(content, subject=subject))
    samples = Samples(inputs=inputs, arrays=data.arrays)
    raw = inference.outputs(content, samples, subject=subject, advance=lambda _count: None)
    return [to_real(array, tensor) for array, tensor in zip(raw, outs, strict=True)]


def _remarks(accuracy: dict[str, float | None]) -> tuple[str, ...]:
    ptq, qat = accuracy["ptq"], accuracy["qat"]
    if ptq is None or qat is None or qat > ptq:
        return ()
    return (
        f"tuning brought nothing here: {qat:.4f} accuracy in integers, {ptq:.4f} without it; "
        "convert the model as it was",
    )
