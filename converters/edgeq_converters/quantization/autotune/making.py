"""Make the candidates of a choice from the samples to fit on, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16, Grid
from edgeq_converters.calibration.ranges import Ranges, calibrated_ranges
from edgeq_converters.data.partition import FitSamples, HeldOutSamples
from edgeq_converters.data.samples import subset
from edgeq_converters.graph.cost import memory_per_sample, obstacle
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance, ignore
from edgeq_converters.quantization import correction, equalization, int16_regions
from edgeq_converters.quantization.autotune import tensor_ranges
from edgeq_converters.quantization.autotune.effort import LIMITS
from edgeq_converters.quantization.autotune.tensor_ranges import Choice
from edgeq_converters.quantization.quantize import Quantized, quantize
from edgeq_converters.recipe import Effort, Recipe
from edgeq_converters.values import Scheme

PLAINEST = "minmax"
_WITHOUT_MEASUREMENT = "mse"
"""The calibrator beside the plainest one where the noise of single tensors is not measured."""
PER_TENSOR = "per-tensor"
"""Not a calibrator: each tensor has the calibrator that adds least noise at the logits (`tensor_ranges`)."""
LEAST_NOISE = "least-noise"
"""Not a calibrator: that with the least noise at the logits when all tensors have it (`tensor_ranges`)."""

_MEMORY = 512 << 20
"""Bytes that the activations of a correction may take."""
_KEPT_BYTES = 4 << 20
"""Bytes of a model up to which quantized models are kept for their correction."""
MEASURED_BYTES = 64 << 20
"""Bytes of a model above which single tensors are not measured: that packs the rest of the model for each."""

FixedRanges = Callable[[FitSamples], Ranges]
"""The ranges that no calibrator decides, from the samples to fit on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A way to make an integer model.

    Attributes:
        calibrator: a name of `calibrators.CALIBRATORS`, PER_TENSOR or LEAST_NOISE.
    """

    calibrator: str
    equalized: bool = False
    corrected: bool = False

    def __str__(self) -> str:
        extras = [name for name, on in (("equalized", self.equalized), ("corrected", self.corrected)) if on]
        return " ".join([f"{self.calibrator} ranges", *([", ".join(extras)] if extras else [])])


def grid_of(scheme: Scheme) -> Grid:
    """Return the integers of a scheme's activations."""
    return INT16 if scheme is Scheme.INT16X8 else INT8


def calibrators_to_try(model: Model, recipe: Recipe) -> tuple[str, ...]:
    """Return the calibrators of a choice, the plainest first; which of them follows from the model alone."""
    if recipe.calibrator != AUTO:
        return (recipe.calibrator,)
    if recipe.effort is Effort.QUICK:
        return (PLAINEST, _WITHOUT_MEASUREMENT)
    if not _noise_calibrators(model, recipe):
        return tensor_ranges.WHOLE_MODEL
    return (PLAINEST, LEAST_NOISE, PER_TENSOR)


def _noise_calibrators(model: Model, recipe: Recipe) -> tuple[str, ...]:
    """Return the calibrators whose noise is measured tensor by tensor; none where that costs too much."""
    limits = LIMITS[recipe.effort]
    if obstacle(model) or grid_of(recipe.scheme) is not INT8 or not limits.measures_tensors:
        return ()
    return () if len(model.data) > MEASURED_BYTES else tensor_ranges.ALL


class Maker:
    """Makes integer models of one float model, fitted on one set of samples.

    Args:
        model: a normalized float model.
        histograms: of these samples, where they are known.
    """

    def __init__(
        self,
        model: Model,
        fit: FitSamples,
        *,
        recipe: Recipe,
        fixed_ranges: FixedRanges,
        histograms: Mapping[str, Histogram] | None = None,
    ) -> None:
        self._fit, self._recipe = fit, recipe
        self._grid = grid_of(recipe.scheme)
        self._fixed = fixed_ranges(fit)
        self._floats: dict[bool, Model] = {False: model}
        self._histograms: dict[bool, Mapping[str, Histogram]] = {}
        if histograms is not None:
            self._histograms[False] = histograms
        self._choices: dict[bool, Choice] = {}
        self._kept: dict[tuple[str, bool], Quantized] = {}

    def with_recipe(self, recipe: Recipe) -> Maker:
        """Return a maker with the same ranges and equalization under a recipe that names other operations."""
        other = Maker(
            self._floats[False],
            self._fit,
            recipe=recipe,
            fixed_ranges=lambda _: self._fixed,
        )
        other._floats, other._histograms, other._choices = self._floats, self._histograms, self._choices
        return other

    def extended(
        self,
        held_out: HeldOutSamples,
        *,
        fit: FitSamples,
        fixed_ranges: FixedRanges,
        histograms: Mapping[str, Histogram],
    ) -> Maker:
        """Return a maker for the samples of this one and those held out from it.

        The equalization and the choice of calibrators stay as they were judged. Ranges and corrections are
        made of all samples.

        Args:
            fit: all samples.
            histograms: of all samples.
        """
        other = Maker(
            self._floats[False],
            fit,
            recipe=self._recipe,
            fixed_ranges=fixed_ranges,
            histograms=histograms,
        )
        other._floats, other._choices = self._floats, self._choices
        counted = self._histograms.get(True)
        # The samples of a larger batch share a run, and those of a sequence the state before them.
        if counted is not None and fit.batch == 1 and fit.begins is None:
            if self._floats[True] is self._floats[False]:
                other._histograms[True] = histograms
            else:
                added = observe(self._floats[True], held_out, advance=ignore)
                other._histograms[True] = {name: each.merge(added[name]) for name, each in counted.items()}
        return other

    def quantized(self, candidate: Candidate) -> Quantized:
        """Return a candidate before its correction.

        Raises:
            ConverterError: as equalization and the quantizer do.
        """
        calibrator = self.resolved(candidate)
        key = calibrator, candidate.equalized
        if key in self._kept:
            return self._kept[key]
        model, histograms = self.floating(candidate.equalized), self._observed(candidate.equalized)
        if calibrator == PER_TENSOR:
            chosen = self._choice(candidate.equalized).calibrators
            ranges = tensor_ranges.per_tensor_ranges(model, histograms, chosen, grid=self._grid)
        else:
            ranges = calibrated_ranges(model, histograms, calibrator=calibrator, grid=self._grid)
        wide = int16_regions.operations(model, self._recipe)
        ranges = int16_regions.with_inner_ranges(ranges, model, histograms, wide)
        made = quantize(model, recipe=self._recipe, ranges={**ranges, **self._fixed})
        if len(model.data) <= _KEPT_BYTES:
            self._kept[key] = made
        return made

    def resolved(self, candidate: Candidate) -> str:
        """Return the name of the calibrator that a candidate uses here."""
        if candidate.calibrator != LEAST_NOISE:
            return candidate.calibrator
        noise = self._choice(candidate.equalized).noise
        return min(noise, key=lambda name: noise[name])

    def corrected(
        self,
        candidate: Candidate,
        model: Model,
        *,
        samples: int | None = None,
        rows: int = correction.ROWS,
        advance: Advance = ignore,
    ) -> Model:
        """Return a candidate's model after its correction.

        Args:
            samples: the most to correct on; None for all.

        Raises:
            ConverterError: as the correction does.
        """
        # Rounding again would move pruned weights away from zero, and undo what pruning gained.
        keep_zeros = (self._recipe.prune or "").startswith("magnitude")
        fit = self._fit if samples is None else subset(self._fit, samples)
        return correction.correct(
            self.floating(candidate.equalized),
            model,
            self._bounded(fit),
            advance=advance,
            terms=correction.Terms(weights=not keep_zeros, rows=rows),
            seed=self._recipe.seed,
        )

    def floating(self, equalized: bool) -> Model:
        """Return the float model that a candidate is made of."""
        if equalized not in self._floats:
            source = self._floats[False]
            self._floats[True] = equalization.equalize(source, self._bounded(self._fit), advance=ignore).model
        return self._floats[equalized]

    def _observed(self, equalized: bool) -> Mapping[str, Histogram]:
        if equalized not in self._histograms:
            model = self.floating(equalized)
            if equalized and model is self._floats[False]:  # there was nothing to equalize
                self._histograms[True] = self._observed(False)
            else:
                self._histograms[equalized] = observe(model, self._fit, advance=ignore)
        return self._histograms[equalized]

    def _choice(self, equalized: bool) -> Choice:
        if equalized not in self._choices:
            model = self.floating(equalized)
            self._choices[equalized] = tensor_ranges.choose(
                model,
                self._observed(equalized),
                self._bounded(self._fit),
                names=_noise_calibrators(model, self._recipe),
                grid=self._grid,
                runs=LIMITS[self._recipe.effort].runs * len(self._fit),
            )
        return self._choices[equalized]

    def _bounded(self, samples: FitSamples) -> FitSamples:
        return subset(samples, max(_MEMORY // max(memory_per_sample(self._floats[False]), 1), 8))
