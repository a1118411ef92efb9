"""The job `convert`: source -> float .tflite -> quantized -> verified file, with optional pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq_converters.data import sample_files
from edgeq_converters.data.sample_files import RawSamples
from edgeq_converters.data.samples import match
from edgeq_converters.edgetpu import report
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference, op_report, tflite_file, validate
from edgeq_converters.progress import Step
from edgeq_converters.quantization import integer, quantize
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources import parity
from edgeq_converters.sources.load import load_source, relaid
from edgeq_converters.sources.types import Loaded
from edgeq_converters.training.pruning.report import PruningReport
from edgeq_converters.training.settings import PruningRequest, TrainingSettings
from edgeq_converters.values import ModelInfo, OpKind, Parity, Scheme
from edgeq_converters.worker import tools
from edgeq_converters.worker.protocol import ConvertJob, ConvertResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The outcome of one conversion.

    Attributes:
        backend: the library that quantized, `none` for float32.
        notes: messages for the user.
        parity: how far the float .tflite is from the source; None where the source is a .tflite.
        tools: packages that took part besides the usual ones.
    """

    info: ModelInfo
    backend: str
    notes: tuple[str, ...]
    parity: Parity | None = None
    tools: tuple[str, ...] = ()


def run(job: ConvertJob, step: Step) -> ConvertResult:
    """Do the job, with pruning and re-tuning before the conversion where the recipe prunes.

    Raises:
        ConverterError: of any code.
    """
    recipe = job.recipe

    def by(used: Recipe) -> Callable[[Path, Path, Path], Converted]:
        return lambda source, output, folder: convert(
            source,
            output,
            recipe=used,
            data=job.data,
            histograms=job.histograms,
            workdir=folder,
            step=step,
        )

    pruning: PruningReport | None = None
    notes: tuple[str, ...] = ()
    if recipe.prune is None:
        converted = by(recipe)(job.source, job.output, job.workdir)
    else:
        from edgeq_converters.training.pruning import conversion

        converted, pruning, notes = conversion.convert(
            job.source,
            job.output,
            request=PruningRequest.parse(recipe.prune),
            settings=TrainingSettings(
                training=job.training,
                validation=job.validation,
                epochs=recipe.epochs,
                distill=recipe.distill,
                seed=recipe.seed,
            ),
            by_recipe=by(recipe),
            to_float=by(Recipe(scheme=Scheme.FLOAT32, io="float32")),
            workdir=job.workdir,
            step=step,
        )
    return ConvertResult(
        pruning=pruning,
        info=converted.info,
        backend=converted.backend,
        notes=(*notes, *converted.notes),
        parity=converted.parity,
        edgetpu=report.readiness(
            tflite_file.parse(job.output.read_bytes(), subject=str(job.output))
        ).summary(),
        tools=tools.versions_of(converted.tools),
    )


def convert(
    source: Path,
    output: Path,
    *,
    recipe: Recipe,
    data: Path | None,
    workdir: Path,
    step: Step,
    histograms: Path | None = None,
) -> Converted:
    """Convert `source` and write `output`; the file is read back, checked and run once.

    Args:
        data: calibration samples; required for integer schemes unless `histograms` are given.
        histograms: written by `edgeq calibrate` for this model.
        step: called with (what, total) when a step starts; returns a function that advances it.

    Raises:
        ConverterError: of any code.
    """
    scheme, io = recipe.scheme, recipe.io
    subject = str(source)
    # Read the data before TensorFlow is loaded: bad data is then reported in a second, not in ten.
    raw = sample_files.read(data) if data is not None and scheme.needs_ranges else None
    loaded = load_source(source, workdir, announce=lambda what: step(what, 1))
    base = loaded.data
    model = tflite_file.parse(base, subject=subject)
    validate.require_sound(model, scheme=scheme, subject=subject)
    inference.run_once(base, subject=subject)
    notes: list[str] = [*loaded.notes]
    inputs, _ = tflite_file.inputs_and_outputs(model)
    if raw is not None:
        raw = relaid(raw, inputs, loaded)
    same = _parity(loaded, model, raw, recipe=recipe, subject=subject, step=step)
    if same is not None and (warning := same.note()):
        notes.append(warning)
    backend = "none" if scheme is Scheme.FLOAT32 else "litert-quantizer"
    if scheme is not Scheme.FLOAT32:
        base = tflite_file.normalized(base, subject=subject)
    # Keep one copy of a large model: the rest works on `base` alone.
    del model
    loaded = replace(loaded, data=b"", reference=None)
    if scheme.needs_ranges:
        samples = None if raw is None else match(raw, inputs)
        quantized = integer.make(
            base, recipe=recipe, samples=samples, histograms=histograms, subject=subject, step=step
        )
        base, backend = quantized.data, quantized.backend
        notes.extend([*(samples.notes if samples else ()), *quantized.notes])
    elif scheme is not Scheme.FLOAT32:
        step("quantize", 1)
        base = quantize.quantize(base, recipe=recipe, ranges=None, subject=subject)
    output.write_bytes(base)
    info = _verify(output, scheme=scheme, io=io, subject=subject, step=step)
    notes.extend(_remarks(info, scheme))
    return Converted(info=info, backend=backend, notes=tuple(notes), parity=same, tools=loaded.tools)


def _parity(
    loaded: Loaded, model: Any, raw: RawSamples | None, *, recipe: Recipe, subject: str, step: Step
) -> Parity | None:
    if loaded.reference is None:
        return None
    step("compare with the source", 1)
    inputs, outputs = tflite_file.inputs_and_outputs(model)
    samples = None if raw is None else match(raw, inputs)
    return parity.check(
        loaded.data, loaded.reference, inputs, outputs, samples=samples, seed=recipe.seed, subject=subject
    )


def _info(written: bytes, scheme: Scheme, subject: str) -> ModelInfo:
    model = tflite_file.parse(written, subject=subject)
    if scheme is Scheme.FLOAT32:
        return op_report.info(model)
    known = quantize.known_ops() | op_report.CONVERSIONS
    return op_report.info(model, unknown_ops={line.op for line in op_report.lines(model)} - known)


def _verify(output: Path, *, scheme: Scheme, io: str, subject: str, step: Step) -> ModelInfo:
    step("verify", 1)
    written = output.read_bytes()
    info = _info(written, scheme, subject)
    if scheme.full_integer:
        op_report.require_full_integer(info, io=io, subject=subject)
    try:
        inference.run_once(written, subject=subject)
    except ConverterError as error:
        raise ConverterError(
            "EQ308",
            subject,
            f"the {scheme} model does not run ({error.problem})",
            hint="use --scheme float16 or float32",
        ) from error
    return info


def _remarks(info: ModelInfo, scheme: Scheme) -> list[str]:
    if scheme is Scheme.DYNAMIC and not any(line.kind is OpKind.MIXED for line in info.ops):
        return ["dynamic quantization found no weights to quantize; the model is still float"]
    if scheme is Scheme.FLOAT16 and not any("float16" in line.reason for line in info.ops):
        return ["float16 found no weights to convert; the model is still float32"]
    return []
