"""From the float hub to a model whose activations are integers: histograms, ranges, and the quantizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeq_converters.calibration import histogram_io, observe
from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.progress import Step
from edgeq_converters.quantization import autotune, int4, quantize
from edgeq_converters.quantization.backends import tensorflow
from edgeq_converters.quantization.quantize import Quantized
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import Scheme

_FEW = 32
_UNJUDGED = "mse"


def make(
    base: bytes,
    *,
    recipe: Recipe,
    samples: Samples | None,
    histograms: Path | None,
    subject: str,
    step: Step,
) -> Quantized:
    """Return the model in integers.

    Args:
        base: a float .tflite with unique tensor names.
        samples: calibration samples; None where only histograms were kept.
        histograms: a file that `edgeq calibrate` wrote for this model, instead of a pass over the samples.

    Raises:
        ConverterError: EQ209 neither was given, EQ331 the histograms are of another model, EQ3xx.
    """
    if recipe.scheme is Scheme.INT4:
        return _int4(base, recipe, samples, histograms, subject, step)
    return _made(base, recipe, samples, histograms, subject, step)


def _int4(
    base: bytes, recipe: Recipe, samples: Samples | None, histograms: Path | None, subject: str, step: Step
) -> Quantized:
    said: tuple[str, ...] = ()
    if int4.open_to_choice(recipe) and samples is not None and not recipe.ranges:
        found, _ = observed(base, samples=samples, histograms=histograms, subject=subject, step=step)
        recipe, said = int4.choose(base, found, samples, recipe=recipe, subject=subject, step=step)
    made = _made(base, recipe, samples, histograms, subject, step)
    warned = int4.remark(base, made.data, samples, seed=recipe.seed, subject=subject)
    return replace(made, notes=(*warned, *said, *made.notes))


def _made(
    base: bytes, recipe: Recipe, samples: Samples | None, histograms: Path | None, subject: str, step: Step
) -> Quantized:
    found, notes = observed(base, samples=samples, histograms=histograms, subject=subject, step=step)
    extra = observe.learned(base, recipe.ranges, subject=subject)
    if recipe.backend is not Backend.LITERT and tensorflow.is_installed():
        extra |= _hidden(base, samples, subject=subject)
    if samples is not None and not recipe.ranges and autotune.wanted(recipe):
        best = autotune.best(
            base, found, samples, recipe=recipe, extra_ranges=extra, subject=subject, step=step
        )
        return Quantized(data=best.data, backend=best.backend, notes=(*notes, *best.notes))
    if recipe.calibrator == AUTO:  # nothing to choose by: ranges are given, or only histograms were kept
        recipe = replace(recipe, calibrator=_UNJUDGED)
    grid = INT16 if recipe.scheme is Scheme.INT16X8 else INT8
    ranges = observe.ranges(base, found, calibrator=recipe.calibrator, subject=subject, grid=grid)
    ranges |= extra
    step("quantize", 1)
    made = quantize.make(base, recipe=recipe, ranges=ranges, subject=subject)
    return replace(made, notes=(*notes, *made.notes))


def observed(
    base: bytes, *, samples: Samples | None, histograms: Path | None, subject: str, step: Step
) -> tuple[Mapping[str, Histogram], tuple[str, ...]]:
    """Return the histograms by tensor, read or taken, and what there is to say about them."""
    if histograms is not None:
        kept = histogram_io.read(histograms)
        histogram_io.require_model(kept, digest=digest_of(base), subject=str(histograms))
        return kept.histograms, remarks(kept.histograms)
    if samples is None:
        raise needs_calibration(subject)
    advance = step("calibrate", len(samples))
    found = observe.observe(base, samples, subject=subject, advance=advance)
    return found, remarks(found)


def digest_of(base: bytes) -> str:
    """Return the sha256 by which histograms name the float .tflite that they were taken from."""
    return hashlib.sha256(base).hexdigest()


def remarks(histograms: Mapping[str, Histogram]) -> tuple[str, ...]:
    """Return what the user should know about the ranges before the model is trusted."""
    said: list[str] = []
    samples = max((histogram.samples for histogram in histograms.values()), default=0)
    if 0 < samples < _FEW:
        counted = "one sample" if samples == 1 else f"{samples} samples"
        said.append(f"calibrated on {counted} only: give 100 to 500, or ranges stay too narrow")
    still = [name for name, found in histograms.items() if found.total and found.minimum == found.maximum]
    if still and samples > 1:
        named = ", ".join(still[:3]) + (" and more" if len(still) > 3 else "")
        said.append(f"{len(still)} of {len(histograms)} tensors have one value over all samples: {named}")
    return tuple(said)


def needs_calibration(subject: str, scheme: Scheme = Scheme.INT8) -> ConverterError:
    """Return the error for an integer scheme without data."""
    return ConverterError(
        "EQ209",
        subject,
        f"the scheme {scheme} needs calibration data",
        expected="--calibration with 100 to 500 representative samples",
        got="none",
        hint="add --calibration C.npz, or use --scheme dynamic, which needs none",
    )


def _hidden(base: bytes, samples: Samples | None, *, subject: str) -> observe.Ranges:
    if samples is not None:
        return tensorflow.hidden_ranges(base, samples, subject=subject)
    if tensorflow.has_lstm(tflite_file.parse(base, subject=subject)):
        raise ConverterError(
            "EQ209",
            subject,
            "an LSTM has ranges inside that no histogram holds",
            expected="samples",
            got="histograms only",
            hint="add --calibration C.npz",
        )
    return {}
