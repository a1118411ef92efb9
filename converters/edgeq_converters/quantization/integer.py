"""Quantize activations as well as weights: histograms, ranges, the choices of `auto`, and the quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeq_converters.calibration import histogram_io
from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.calibration.ranges import Ranges, calibrated_ranges, learned_ranges
from edgeq_converters.data.partition import FitSamples, Partition, all_to_fit, distinct, split
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.quantization import autotune, int4, int16_regions, slices
from edgeq_converters.quantization.backends import tensorflow
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
        ConverterError: EQ209 neither samples nor histograms are given, EQ331 the histograms are of another
            model; EQ3xx as the quantizer does.
    """
    observed = load_histograms(model, samples=samples, histograms=histograms, step=step)
    divided = slices.divide(model, observed, recipe)
    quantized = _quantize_divided(divided.model, recipe, samples, observed, step)
    joined = slices.join(quantized.model, divided, model)
    return replace(quantized, model=joined, notes=(*divided.notes, *quantized.notes))


def _quantize_divided(
    model: Model,
    recipe: Recipe,
    samples: Samples | None,
    observed: Mapping[str, Histogram],
    step: Step,
) -> Quantized:
    if recipe.scheme is not Scheme.INT4:
        return _quantize(model, recipe, samples, observed, step)
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
    quantized = _quantize(model, recipe, samples, observed, step, judged)
    warnings = int4.warn_if_poor(model, quantized.model, samples, claim=quantized.claim)
    return replace(quantized, notes=(*warnings, *choice_notes, *quantized.notes))


def _quantize(
    model: Model,
    recipe: Recipe,
    samples: Samples | None,
    observed: Mapping[str, Histogram],
    step: Step,
    judged: Partition | None = None,
) -> Quantized:
    notes = histogram_cautions(observed)

    def fixed_ranges(fit: FitSamples | None) -> Ranges:
        fixed = learned_ranges(model, recipe.ranges)
        if recipe.backend is not Backend.LITERT and tensorflow.is_installed():
            fixed |= _hidden_ranges(model, fit)
        return fixed

    if samples is not None and not recipe.ranges and autotune.is_needed(recipe):
        best = autotune.choose(
            model, observed, samples, recipe=recipe, fixed_ranges=fixed_ranges, step=step, judged=judged
        )
        return Quantized(
            model=best.model, backend=best.backend, notes=(*notes, *best.notes), claim=best.claim
        )
    if recipe.calibrator == AUTO:  # nothing to measure: the recipe has ranges, or there are histograms only
        recipe = replace(recipe, calibrator=_WITHOUT_SAMPLES)
    grid = INT16 if recipe.scheme is Scheme.INT16X8 else INT8
    ranges = calibrated_ranges(model, observed, calibrator=recipe.calibrator, grid=grid)
    wide = int16_regions.operations(model, recipe)
    ranges = int16_regions.with_inner_ranges(ranges, model, observed, wide)
    ranges |= fixed_ranges(None if samples is None else all_to_fit(samples))
    step("quantize", 1)
    quantized = quantize(model, recipe=recipe, ranges=ranges)
    return replace(quantized, notes=(*notes, *quantized.notes))


def load_histograms(
    model: Model, *, samples: Samples | None, histograms: Path | None, step: Step
) -> Mapping[str, Histogram]:
    """Return the histogram of each activation, from a file or from a pass over the samples.

    Raises:
        ConverterError: EQ209 there is neither, EQ331 the file is of another model, EQ309 NaN or infinity.
    """
    if histograms is not None:
        file = histogram_io.read(histograms)
        histogram_io.require_model(file, digest=model.sha256, subject=str(histograms))
        return file.histograms
    if samples is None:
        raise needs_calibration(model.subject)
    return observe(model, samples, advance=step("calibrate", len(samples)))


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


def _hidden_ranges(model: Model, samples: FitSamples | None) -> Ranges:
    if samples is not None:
        return tensorflow.hidden_ranges(model, samples)
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
