"""The job `convert`: source -> float .tflite -> quantized -> verified file, with optional pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq_converters.data import files
from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import Samples, match
from edgeq_converters.edgetpu import report
from edgeq_converters.errors import ConverterError, other_schemes
from edgeq_converters.graph import metadata, op_report, validate
from edgeq_converters.graph.interface import interface_of, require_interface
from edgeq_converters.graph.interpreter import run_once
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.progress import Step
from edgeq_converters.quantization import integer_io
from edgeq_converters.quantization.integer import quantize_activations
from edgeq_converters.quantization.quantize import Quantized, known_ops, quantize
from edgeq_converters.recipe import Recipe
from edgeq_converters.sensitivity import usefulness
from edgeq_converters.sensitivity.usefulness import Loss
from edgeq_converters.sources import detect
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.load import load_source, to_tflite_layout
from edgeq_converters.sources.parity import check_parity
from edgeq_converters.sources.types import SourceOptions
from edgeq_converters.training.pruning.report import PruningReport
from edgeq_converters.training.settings import PruningRequest, TrainingSettings
from edgeq_converters.values import (
    Caution,
    Claim,
    Interface,
    ModelInfo,
    OpKind,
    Parity,
    Scheme,
    TensorInfo,
    notes_of,
    warnings_of,
)
from edgeq_converters.worker import tools
from edgeq_converters.worker.protocol import ConvertJob, ConvertResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The outcome of one conversion.

    Attributes:
        backend: the library that quantized, `none` for float32.
        notes: remarks for the user, cautions among them.
        parity: how far the float .tflite is from the source; None where the source is a .tflite.
        claim: what the result reaches on held-out samples; None where nothing was chosen on any.
        tools: packages that took part besides the usual ones.
    """

    info: ModelInfo
    backend: str
    notes: tuple[str, ...]
    parity: Parity | None = None
    claim: Claim | None = None
    tools: tuple[str, ...] = ()


def run(job: ConvertJob, step: Step) -> ConvertResult:
    """Do the job, with pruning and re-tuning before the conversion where the recipe prunes.

    Raises:
        ConverterError: of any code.
    """
    recipe = job.recipe

    def by(
        used: Recipe, *, strict: bool = job.strict
    ) -> Callable[[Path, Path, Path, Path | None], Converted]:
        return lambda source, output, folder, data: convert(
            source,
            output,
            recipe=used,
            data=data or job.data,
            histograms=job.histograms,
            workdir=folder,
            step=step,
            strict=strict,
        )

    pruning: PruningReport | None = None
    notes: tuple[str, ...] = ()
    if recipe.prune is None:
        converted = by(recipe)(job.source, job.output, job.workdir, job.data)
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
            unpruned=by(recipe, strict=False),
            to_float=by(Recipe(scheme=Scheme.FLOAT32, io="float32")),
            calibration=job.data if recipe.scheme.needs_ranges and job.histograms is None else None,
            workdir=job.workdir,
            step=step,
        )
    useless = pruning.useless if pruning else None
    if useless and job.strict:
        raise usefulness.useless_pruning(useless, subject=str(job.source))
    cautions = [Caution(f"the pruned file is useless: {useless}")] if useless else []
    remarks = (*cautions, *notes, *converted.notes)
    return ConvertResult(
        pruning=pruning,
        info=converted.info,
        backend=converted.backend,
        notes=notes_of(remarks),
        warnings=warnings_of(remarks),
        parity=converted.parity,
        claim=converted.claim,
        edgetpu=report.readiness(Model.read(job.output)).summary(),
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
    strict: bool = False,
) -> Converted:
    """Convert `source` and write `output`; the file is read back, checked and run once.

    Args:
        data: calibration samples; required for integer schemes unless `histograms` are given.
        histograms: written by `edgeq calibrate` for this model.
        step: called with (what, total) when a step starts; returns a function that advances it.
        strict: refuse a result that does not follow its float model; without it, that is a note.

    Raises:
        ConverterError: of any code.
    """
    written = _write(source, output, recipe, data, histograms, workdir, step)
    if strict and written.loss is not None:
        raise usefulness.useless(written.loss, subject=str(source))
    loss = written.loss
    useless = [] if loss is None else [Caution(f"the result is useless: {loss}; {usefulness.ADVICE}")]
    model = Model(data=output.read_bytes(), subject=str(source))
    info = _verify(model, recipe=recipe, interface=written.interface, step=step)
    return Converted(
        info=info,
        backend=written.backend,
        notes=(*useless, *written.notes, *_remarks(info, recipe.scheme)),
        parity=written.parity,
        claim=written.claim,
        tools=written.tools,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What is known of a conversion once its file is written; it holds no model, which may be large."""

    backend: str
    interface: Interface
    loss: Loss | None
    notes: tuple[str, ...]
    parity: Parity | None
    claim: Claim | None
    tools: tuple[str, ...]


def _write(
    source: Path,
    output: Path,
    recipe: Recipe,
    data: Path | None,
    histograms: Path | None,
    workdir: Path,
    step: Step,
) -> _Written:
    scheme = recipe.scheme
    # Read the data before TensorFlow is loaded: bad data is then reported in a second, not in ten.
    raw = files.read(data) if data is not None else None
    hub = _load(source, raw, recipe=recipe, workdir=workdir, step=step)
    if scheme.needs_ranges:
        quantized = quantize_activations(
            hub.model, recipe=recipe, samples=hub.samples, histograms=histograms, step=step
        )
    elif scheme is Scheme.FLOAT32:
        quantized = Quantized(model=hub.model, backend="none")
    else:
        step("quantize", 1)
        quantized = quantize(hub.model, recipe=recipe, ranges=None)
    made = integer_io.with_unread_inputs(quantized.model, io=recipe.core_io)
    if recipe.core_io != "float32":
        made = integer_io.with_types(made, recipe.types)
    if detect.detect(source) is SourceKind.TFLITE:
        made = metadata.carried(Model.read(source), made)
    output.write_bytes(made.data)
    loss = None if scheme is Scheme.FLOAT32 else _loss(hub, made, recipe)
    sample_notes = hub.samples.notes if hub.samples else ()
    return _Written(
        backend=quantized.backend,
        interface=interface_of(hub.model),
        loss=loss,
        notes=(*hub.notes, *sample_notes, *quantized.notes),
        parity=hub.parity,
        claim=quantized.claim,
        tools=hub.tools,
    )


def _loss(hub: _Hub, made: Model, recipe: Recipe) -> Loss | None:
    if hub.samples is not None:
        return usefulness.find_loss(hub.model, made, hub.samples)
    random = usefulness.random_samples(hub.model, seed=recipe.seed)
    return usefulness.find_loss(hub.model, made, random, data="random")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hub:
    """The float .tflite of a source, checked, and prepared for its scheme.

    Attributes:
        samples: calibration samples for the model; None without data.
    """

    model: Model
    samples: Samples | None
    notes: tuple[str, ...]
    parity: Parity | None
    tools: tuple[str, ...]


def _load(source: Path, raw: RawSamples | None, *, recipe: Recipe, workdir: Path, step: Step) -> _Hub:
    # A function of its own: the source's copy of a large model is freed before anything is quantized.
    def check(inputs: Sequence[TensorInfo]) -> None:
        if raw is not None:
            match(raw, inputs)

    loaded = load_source(
        source,
        workdir,
        announce=lambda what: step(what, 1),
        options=SourceOptions(signature=recipe.signature, shapes=recipe.shapes),
        check=check,
        one_signature=recipe.scheme.needs_ranges,
    )
    model = loaded.model
    validate.require_convertible(model, scheme=recipe.scheme)
    run_once(model)
    samples = None if raw is None else match(to_tflite_layout(raw, loaded), model.inputs)
    parity = None
    if loaded.reference is not None:
        step("compare with the source", 1)
        parity = check_parity(model, loaded.reference, samples=samples, seed=recipe.seed)
    # A source in half precision is less exact than its .tflite: only what parity refuses is a fault there.
    caution = parity.caution() if parity is not None and not loaded.half else None
    if recipe.scheme.needs_ranges:
        model = prepared(model)
    elif recipe.scheme is not Scheme.FLOAT32:
        model = normalize(model)
    return _Hub(
        model=model,
        samples=samples,
        notes=(*loaded.notes, *([caution] if caution else [])),
        parity=parity,
        tools=loaded.tools,
    )


def _verify(model: Model, *, recipe: Recipe, interface: Interface, step: Step) -> ModelInfo:
    step("verify", 1)
    require_interface(model, interface, io=recipe.types)
    unknown: set[str] = set()
    if recipe.scheme is not Scheme.FLOAT32:
        unknown = {line.op for line in op_report.op_lines(model)} - known_ops() - op_report.CONVERSIONS
    info = op_report.describe(model, unknown_ops=unknown)
    if recipe.scheme.full_integer:
        op_report.require_full_integer(info, io=recipe.types, subject=model.subject)
    try:
        run_once(model)
    except ConverterError as error:
        raise ConverterError(
            "EQ308",
            model.subject,
            f"the {recipe.scheme} model does not run ({error.problem})",
            hint=other_schemes(recipe.scheme),
        ) from error
    return info


def _remarks(info: ModelInfo, scheme: Scheme) -> list[str]:
    if scheme is Scheme.DYNAMIC and not any(line.kind is OpKind.MIXED for line in info.ops):
        return [Caution("dynamic quantization found no weights to quantize; the model is still float")]
    if scheme is Scheme.FLOAT16 and not any("float16" in line.reason for line in info.ops):
        return [Caution("float16 found no weights to convert; the model is still float32")]
    return []
