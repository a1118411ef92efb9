"""Quantize activations as well as weights: histograms, ranges, the choices of `auto`, and the quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeq_converters.calibration import histogram_io
from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observed import Observed, observe_parts
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.calibration.ranges import Ranges, calibrated_ranges, learned_ranges, require_known
from edgeq_converters.data.partition import FitSamples, Partition, all_to_fit, distinct, split
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import carried_states, postprocessing
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.quantization import (
    autotune,
    columns,
    int4,
    int16_regions,
    late_joins,
    named_operations,
    slices,
    tails,
)
from edgeq_converters.quantization.backends import lstm, own, tensorflow
from edgeq_converters.quantization.columns import ColumnSizes
from edgeq_converters.quantization.quantize import Quantized, quantize
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import Caution, Scheme

_FEW = 32
_WITHOUT_SAMPLES = "mse"
"""The calibrator of `auto` where nothing can be measured."""


def quantize_activations(
    model: Model, *, recipe: Recipe, samples: Samples | None, histograms: Path | None, step: Step
) -> Quantized:
    """Return the model with integer weights and activations.

    Args:
        model: a normalized float model.
        samples: the representative dataset; None if only histograms are given.
        histograms: a file that `edgeq calibrate` wrote for this model, which saves the pass over the samples.

    Raises:
        ConverterError: EQ209 neither samples nor histograms are given, EQ330 the recipe names an operation
            that the model does not have, EQ331 the histograms are of another model;
            EQ3xx as the quantizer does.
    """
    recipe = named_operations.resolved(model, recipe)
    require_known(model, recipe.ranges)
    detached = postprocessing.detach(model)
    if histograms is not None:
        observed = Observed(groups=(_histograms(model, histograms),))
    elif samples is None:
        raise needs_calibration(model.subject)
    else:
        observed = _observe(detached.model, samples, recipe, step)
    recipe = named_operations.within(detached.model, recipe)
    quantized = _quantize_head(detached.model, recipe, samples, observed, step)
    if not detached.read:
        return quantized
    note = "the post-processing of detections stays float, and so do its outputs"
    return replace(
        quantized,
        model=postprocessing.attach(quantized.model, detached, model),
        notes=(note, *quantized.notes),
    )


def _quantize_head(
    model: Model,
    recipe: Recipe,
    samples: Samples | None,
    observed: Observed,
    step: Step,
) -> Quantized:
    levelled = columns.level(model, samples, recipe)
    whole = levelled.sizes.by_position
    # A state has one scale at both ends, so that it can be fed back as it is.
    as_they_are = {*whole, *(state.output for state in carried_states.read(model))}
    moved_joins = late_joins.join_last(levelled.model, observed.all, recipe, except_for=as_they_are)
    known = observed.mapped(moved_joins.histograms)
    if known is None and samples is not None:
        known = _observe(moved_joins.model, samples, recipe, step)
    joined_last = levelled.model if known is None else moved_joins.model  # histograms only: it stays
    observed = observed if known is None else known
    divided = slices.divide(joined_last, observed.all, recipe, except_for=as_they_are)
    recipe = named_operations.within(divided.model, recipe)
    members = columns.level(divided.model, samples, recipe, only=divided.columns)
    moved = {divided.moved(position): each for position, each in whole.items()}
    sizes = ColumnSizes(by_position={**moved, **members.sizes.by_position})
    if sizes.by_position and samples is not None:  # the histograms are of the values before
        observed = _observe(members.model, samples, recipe, step)
    quantized = _quantize_divided(members.model, recipe, samples, observed, step, sizes)
    joined = slices.join(columns.with_column_scales(quantized.model, sizes), divided, model)
    notes = (*levelled.notes, *divided.notes, *members.notes, *quantized.notes)
    return replace(quantized, model=joined, notes=notes)


def _quantize_divided(
    model: Model,
    recipe: Recipe,
    samples: Samples | None,
    observed: Observed,
    step: Step,
    sizes: ColumnSizes,
) -> Quantized:
    if recipe.scheme is not Scheme.INT4:
        return _quantize(model, recipe, samples, observed, step, sizes)
    choice_notes: tuple[str, ...] = ()
    judged: Partition | None = None
    if (
        int4.leaves_choice(recipe)
        and samples is not None
        and not recipe.ranges
        and distinct(samples) >= autotune.FEWEST
    ):
        # The operations are chosen within the samples to fit on: nothing sees those that judge the result.
        judged = split(samples, seed=recipe.seed)
        choosing = split(judged.folds[0].fit, seed=recipe.seed)
        recipe, choice_notes = int4.choose(model, choosing.folds[0], recipe=recipe, step=step)
    quantized = _quantize(model, recipe, samples, observed, step, sizes, judged)
    warnings = int4.warn_if_poor(model, quantized.model, samples, claim=quantized.claim)
    return replace(quantized, notes=(*warnings, *choice_notes, *quantized.notes))


def _quantize(
    model: Model,
    recipe: Recipe,
    samples: Samples | None,
    observed: Observed,
    step: Step,
    sizes: ColumnSizes,
    judged: Partition | None = None,
) -> Quantized:
    notes = histogram_cautions(observed.all)

    def fixed_ranges(fit: FitSamples | None) -> Ranges:
        return learned_ranges(model, recipe.ranges) | _hidden_ranges(model, recipe, fit)

    if samples is not None and not recipe.ranges and autotune.is_needed(recipe):
        best = autotune.choose(
            model,
            observed,
            samples,
            recipe=recipe,
            fixed_ranges=fixed_ranges,
            step=step,
            judged=judged,
            sizes=sizes,
        )
        quantized = Quantized(
            model=best.model, backend=best.backend, notes=(*notes, *best.notes), claim=best.claim
        )
        return tails.improved(
            quantized, model=model, recipe=recipe, samples=samples, sizes=sizes, make=best.made, step=step
        )
    if recipe.calibrator == AUTO:  # nothing to measure: the recipe has ranges, or there are histograms only
        recipe = replace(recipe, calibrator=_WITHOUT_SAMPLES)
    grid = INT16 if recipe.scheme is Scheme.INT16X8 else INT8
    calibrated = calibrated_ranges(model, observed.all, calibrator=recipe.calibrator, grid=grid)
    fixed = fixed_ranges(None if samples is None else all_to_fit(samples))

    def make(used: Recipe, _correct: bool) -> Quantized:
        wide = int16_regions.operations(model, used)
        ranges = int16_regions.with_inner_ranges(calibrated, model, observed.all, wide)
        return quantize(model, recipe=used, ranges={**ranges, **fixed})

    step("quantize", 1)
    quantized = make(recipe, False)
    quantized = replace(quantized, notes=(*notes, *quantized.notes))
    if samples is None:
        return quantized if recipe.tail is None else make(tails.with_tail(recipe, model), False)
    return tails.improved(
        quantized, model=model, recipe=recipe, samples=samples, sizes=sizes, make=make, step=step
    )


def _observe(model: Model, samples: Samples, recipe: Recipe, step: Step) -> Observed:
    """Count the samples that the choice will hold out apart from the others."""
    parts = None if recipe.ranges else autotune.division(model, samples, recipe=recipe)
    return observe_parts(model, samples, parts, advance=step("calibrate", len(samples)))


def _histograms(model: Model, path: Path) -> Mapping[str, Histogram]:
    file = histogram_io.read(path)
    histogram_io.require_model(file, digest=model.sha256, subject=str(path))
    return file.histograms


def histogram_cautions(histograms: Mapping[str, Histogram]) -> tuple[str, ...]:
    """Return warnings about calibration data that may not be representative."""
    notes: list[str] = []
    samples = max((histogram.samples for histogram in histograms.values()), default=0)
    if 0 < samples < _FEW:
        count = "only one sample" if samples == 1 else f"only {samples} samples"
        notes.append(f"calibrated on {count}: give 100 to 500, or the ranges may be too narrow")
    constant = [name for name, each in histograms.items() if each.total and each.minimum == each.maximum]
    if constant and samples > 1:
        named = ", ".join(constant[:3]) + (" and more" if len(constant) > 3 else "")
        notes.append(
            f"{len(constant)} of {len(histograms)} tensors have the same value over all samples: {named}"
        )
    return tuple(map(Caution, notes))


def needs_calibration(subject: str, scheme: Scheme = Scheme.INT8) -> ConverterError:
    """Return the error for an integer scheme without a representative dataset."""
    return ConverterError(
        "EQ209",
        subject,
        f"the scheme {scheme} needs calibration data",
        expected="--calibration with 100 to 500 representative samples",
        got="none",
        hint="add --calibration C.npz, or use --scheme dynamic, which needs none",
    )


def _hidden_ranges(model: Model, recipe: Recipe, samples: FitSamples | None) -> Ranges:
    """Return the ranges of tensors inside fused LSTMs, which histograms do not hold."""
    if recipe.backend is Backend.LITERT:
        return {}
    by_tensorflow = tensorflow.is_installed() and (
        recipe.backend is Backend.TENSORFLOW or not own.writes_every_lstm(model)
    )
    if samples is not None:
        return (
            tensorflow.hidden_ranges(model, samples) if by_tensorflow else lstm.inner_ranges(model, samples)
        )
    if tensorflow.has_lstm(model):
        raise ConverterError(
            "EQ209",
            model.subject,
            "an LSTM has inner ranges, which histograms do not hold",
            expected="samples",
            got="histograms only",
            hint="add --calibration C.npz",
        )
    return {}
