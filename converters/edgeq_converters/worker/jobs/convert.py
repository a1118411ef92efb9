"""The job `convert`: source -> float .tflite -> quantized -> verified file, with optional pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq_converters.data import files
from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import Samples, subset
from edgeq_converters.data.sequences import match_sequences
from edgeq_converters.edgetpu import report
from edgeq_converters.errors import ConverterError, other_schemes
from edgeq_converters.graph import carried_states, metadata, op_report, validate, variables
from edgeq_converters.graph.interface import interface_of, require_interface
from edgeq_converters.graph.interpreter import batches, run_once
from edgeq_converters.graph.kernel_uses import kernel_uses
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.graph.variables import Detached
from edgeq_converters.kernels import Target, require_kernels, slow_parts, unsuited
from edgeq_converters.progress import Step
from edgeq_converters.quantization import float_parts, integer_io
from edgeq_converters.quantization.backends import tensorflow
from edgeq_converters.quantization.float_parts import FloatPlan
from edgeq_converters.quantization.integer import quantize_activations
from edgeq_converters.quantization.quantize import Quantized, known_ops, quantize, tried
from edgeq_converters.recipe import Recipe, Tail
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
    CarriedState,
    Caution,
    Claim,
    FloatPart,
    Interface,
    ModelInfo,
    OpKind,
    Parity,
    Scheme,
    TensorInfo,
    notes_of,
    warnings_of,
)
from edgeq_converters.worker import float_cost, tools
from edgeq_converters.worker.protocol import ConvertJob, ConvertResult
from edgeq_converters.worker.stateful_samples import matched


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The outcome of one conversion.

    Attributes:
        backend: the library that quantized, `none` for float32.
        notes: remarks for the user, cautions among them.
        parity: how far the float .tflite is from the source; None where the source is a .tflite.
        claim: what the result reaches on held-out samples; None where nothing was chosen on any.
        tools: packages that took part besides the usual ones.
        float_part: the float operations of an integer model; None where all are integer.
        tail: the last operations that were given more bits, which the recipe then names.
    """

    info: ModelInfo
    backend: str
    notes: tuple[str, ...]
    parity: Parity | None = None
    claim: Claim | None = None
    tools: tuple[str, ...] = ()
    float_part: FloatPart | None = None
    tail: Tail | None = None


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
            measure_float=job.measure_float,
            target=job.target,
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
                loss=job.loss,
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
        float_part=converted.float_part,
        edgetpu=report.readiness(Model.read(job.output)).summary(),
        tools=tools.versions_of(converted.tools),
        tail=converted.tail,
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
    measure_float: bool = True,
    target: Target | None = None,
) -> Converted:
    """Convert `source` and write `output`; the file is read back, checked and run once.

    Args:
        data: calibration samples; required for integer schemes unless `histograms` are given.
        histograms: written by `edgeq calibrate` for this model.
        step: called with (what, total) when a step starts; returns a function that advances it.
        strict: refuse a result that does not follow its float model; without it, that is a note.
        measure_float: time the operations of an integer model that stay float.
        target: the machine whose kernels judge the model before it is calibrated.

    Raises:
        ConverterError: of any code.
    """
    written = _write(source, output, recipe, data, histograms, workdir, step, target)
    if strict and written.loss is not None:
        raise usefulness.useless(written.loss, subject=str(source))
    loss = written.loss
    useless = [] if loss is None else [Caution(f"the result is useless: {loss}; {usefulness.ADVICE}")]
    model = Model(data=output.read_bytes(), subject=str(source))
    info = _verify(model, recipe=recipe, interface=written.interface, step=step)
    part = _float_part(model, recipe, written, measure_float=measure_float, step=step)
    return Converted(
        info=info,
        backend=written.backend,
        notes=(*useless, *written.notes, *_remarks(info, recipe.scheme)),
        parity=written.parity,
        claim=written.claim,
        tools=written.tools,
        float_part=part,
        tail=written.tail,
    )


def _float_part(
    model: Model, recipe: Recipe, written: _Written, *, measure_float: bool, step: Step
) -> FloatPart | None:
    listed = float_parts.float_operations(model, written.reasons) if recipe.scheme.needs_ranges else ()
    if not listed:
        return None
    cost, unmeasured = None, "it was not asked for"
    if measure_float:
        samples = written.samples or usefulness.random_samples(model, seed=recipe.seed)
        rows, _ = next(batches(samples, model.inputs))
        cost, unmeasured = float_cost.measure(model, listed, rows, step=step)
    return float_parts.describe(model, listed, cost=cost, unmeasured=unmeasured)


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
    reasons: Mapping[str, str]
    samples: Samples | None
    tail: Tail | None


def _write(
    source: Path,
    output: Path,
    recipe: Recipe,
    data: Path | None,
    histograms: Path | None,
    workdir: Path,
    step: Step,
    target: Target | None,
) -> _Written:
    scheme = recipe.scheme
    planned = FloatPlan(recipe=recipe)
    # Read the data before TensorFlow is loaded: bad data is then reported in a second, not in ten.
    raw = files.read(data) if data is not None else None
    hub = _load(source, raw, recipe=recipe, workdir=workdir, step=step)
    judged: tuple[Caution, ...] = ()
    if scheme.needs_ranges:
        planned, trial = _plan(hub.model, recipe)
        if target is not None:
            if trial is None and not recipe.full_integer:
                trial = tried(hub.model, recipe=planned.recipe)
            judged = _judged(trial, target, recipe, str(source), step)
        quantized = quantize_activations(
            hub.model, recipe=planned.recipe, samples=hub.samples, histograms=histograms, step=step
        )
    elif scheme is Scheme.FLOAT32:
        quantized = Quantized(model=hub.model, backend="none")
        judged = _judged(hub.model, target, recipe, str(source), step)
    else:
        step("quantize", 1)
        quantized = quantize(hub.model, recipe=recipe, ranges=None)
        judged = _judged(quantized.model, target, recipe, str(source), step)
    made = integer_io.with_unread_inputs(quantized.model, io=recipe.core_io)
    if hub.states:
        made = carried_states.with_one_scale(carried_states.declared(made, hub.states))
    compared = carried_states.declared(made, carried_states.read(hub.model))
    made = variables.attach(made, hub.detached, hub.states)
    if recipe.core_io != "float32":
        made = integer_io.with_types(made, recipe.types)
    if detect.detect(source) is SourceKind.TFLITE:
        made = metadata.carried(Model.read(source), made)
    output.write_bytes(made.data)
    compared = compared if hub.detached.variables else made
    loss = None if scheme is Scheme.FLOAT32 else _loss(hub, compared, recipe)
    sample_notes = hub.samples.notes if hub.samples else ()
    poor: tuple[Caution, ...] = ()
    if loss is None and hub.samples is not None and scheme.needs_ranges:
        poor = usefulness.poor_outputs(hub.model, compared, hub.samples)
    return _Written(
        backend=quantized.backend,
        interface=hub.interface,
        loss=loss,
        notes=(*judged, *poor, *hub.notes, *sample_notes, *quantized.notes),
        parity=hub.parity,
        claim=quantized.claim,
        tools=hub.tools,
        reasons=planned.reasons,
        samples=None if hub.samples is None or hub.detached.variables else subset(hub.samples, 1),
        tail=quantized.tail,
    )


def _plan(model: Model, recipe: Recipe) -> tuple[FloatPlan, Model | None]:
    """Return which operations stay float, before anything is calibrated, and the model that was tried.

    Raises:
        ConverterError: EQ307 some would, which the recipe does not allow.
    """
    if not recipe.full_integer:
        return float_parts.plan(model, recipe), None
    made = tried(model, recipe=recipe)
    if made is not None:
        _require_full_integer(_described(made), recipe, model.subject)
        float_parts.require_kernels(made, model, recipe)
    return FloatPlan(recipe=recipe), made


def _judged(
    model: Model | None, target: Target | None, recipe: Recipe, subject: str, step: Step
) -> tuple[Caution, ...]:
    """Return what is slow on the machine that the model is for.

    Args:
        model: as the scheme writes it, with any ranges; None where that is not known: the scheme is judged.

    Raises:
        ConverterError: EQ340 the machine has no kernel for some operation.
    """
    if target is None:
        return ()
    if model is None:
        reason = unsuited(target.table, recipe.scheme)
        lines: tuple[str, ...] = () if reason is None else (reason,)
    else:
        uses = kernel_uses(model)
        require_kernels(target, uses, recipe.scheme, may_be_float=not recipe.full_integer, subject=subject)
        lines = slow_parts(target.table, uses, scheme=recipe.scheme)
    for line in lines:
        step(f"{target.name}: {line}", 1)  # said at once: the calibration that follows may take minutes
    return tuple(Caution(line) for line in lines)


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
        states: that it gives as outputs and takes as inputs at the next step, without its variables.
        interface: of the source.
        detached: the variables that are inputs and outputs of `model`.
    """

    model: Model
    samples: Samples | None
    states: tuple[CarriedState, ...]
    interface: Interface
    detached: Detached
    notes: tuple[str, ...]
    parity: Parity | None
    tools: tuple[str, ...]


def _load(source: Path, raw: RawSamples | None, *, recipe: Recipe, workdir: Path, step: Step) -> _Hub:
    # A function of its own: the source's copy of a large model is freed before anything is quantized.
    def check(inputs: Sequence[TensorInfo]) -> None:
        if raw is not None:
            states = carried_states.possible(inputs, recipe.states, subject=str(source))
            match_sequences(raw, inputs, states=states)

    loaded = load_source(
        source,
        workdir,
        announce=lambda what: step(what, 1),
        options=SourceOptions(signature=recipe.signature, shapes=recipe.shapes, constants=recipe.constants),
        check=check,
        one_signature=recipe.scheme.needs_ranges,
    )
    validate.require_convertible(loaded.model, scheme=recipe.scheme)
    carried = carried_states.carried(loaded.model, recipe.states)
    model = carried_states.declared(loaded.model, carried.states)
    run_once(model)
    samples: Samples | None = None
    about_samples: list[str] = []
    if raw is not None:
        samples, about_samples = matched(to_tflite_layout(raw, loaded), model)
    parity = None
    if loaded.reference is not None:
        step("compare with the source", 1)
        parity = check_parity(model, loaded.reference, samples=samples, seed=recipe.seed)
    # A source in half precision is less exact than its .tflite: only what parity refuses is a fault there.
    caution = parity.caution() if parity is not None and not loaded.half else None
    # Of the normalized model, which gives tensors of equal names names of their own.
    whole, detached = model, variables.Detached(model=model)
    if recipe.scheme.needs_ranges:
        whole = prepared(model)
        detached = variables.detach(carried_states.declared(whole, carried.states))
        model = detached.model
        if raw is not None and detached.variables:
            samples, about_samples = matched(to_tflite_layout(raw, loaded), model, initial=detached.initial)
    elif recipe.scheme is not Scheme.FLOAT32:
        model = whole = carried_states.declared(normalize(model), carried.states)
    return _Hub(
        model=model,
        samples=samples,
        states=carried.states,
        interface=interface_of(whole),
        detached=detached,
        notes=(
            *loaded.notes,
            *([carried.note] if carried.note else []),
            *about_samples,
            *([caution] if caution else []),
        ),
        parity=parity,
        tools=loaded.tools,
    )


def _verify(model: Model, *, recipe: Recipe, interface: Interface, step: Step) -> ModelInfo:
    step("verify", 1)
    require_interface(model, interface, io=recipe.types)
    info = _described(model) if recipe.scheme is not Scheme.FLOAT32 else op_report.describe(model)
    if recipe.full_integer:
        _require_full_integer(info, recipe, model.subject)
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


def _described(model: Model) -> ModelInfo:
    unknown = {line.op for line in op_report.op_lines(model)} - known_ops() - op_report.CONVERSIONS
    return op_report.describe(model, unknown_ops=unknown)


def _require_full_integer(info: ModelInfo, recipe: Recipe, subject: str) -> None:
    try:
        op_report.require_full_integer(info, io=recipe.types, subject=subject)
    except ConverterError as error:
        if tensorflow.is_installed():
            raise
        more = "`pip install 'edgeq[convert]'` adds TensorFlow's quantizer, which may know them"
        raise ConverterError(
            error.code,
            subject,
            error.problem,
            expected=error.expected,
            got=error.got,
            hint="; ".join(part for part in (more, error.hint) if part),
        ) from error


def _remarks(info: ModelInfo, scheme: Scheme) -> list[str]:
    if scheme is Scheme.DYNAMIC and not any(line.kind is OpKind.MIXED for line in info.ops):
        return [Caution("dynamic quantization listed no weights to quantize; the model is still float")]
    if scheme is Scheme.FLOAT16 and not any("float16" in line.reason for line in info.ops):
        return [Caution("float16 listed no weights to convert; the model is still float32")]
    return []
