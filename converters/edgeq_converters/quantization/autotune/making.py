"""Make the candidates of a choice from the samples to fit on, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16, Grid
from edgeq_converters.calibration.ranges import Ranges, calibrated_ranges
from edgeq_converters.data.partition import FitSamples
from edgeq_converters.data.samples import subset
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.cost import macs, memory_per_sample, obstacle
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance, ignore
from edgeq_converters.quantization import correction, equalization, int16_regions
from edgeq_converters.quantization.autotune import tensor_ranges
from edgeq_converters.quantization.autotune.tensor_ranges import Choice
from edgeq_converters.quantization.quantize import Quantized, quantize
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

PLAINEST = "minmax"
PER_TENSOR = "per-tensor"
"""Not a calibrator: each tensor has the calibrator that adds least noise at the logits (`tensor_ranges`)."""
LEAST_NOISE = "least-noise"
"""Not a calibrator: that with the least noise at the logits when all tensors have it (`tensor_ranges`)."""

_MEMORY = 512 << 20
"""Bytes that the activations of a correction may take."""
_MEASURED = 32
MEASURED_MACS = 250_000_000_000
"""Most samples, and most multiplications in all, to measure the noise of single tensors with."""
_TOO_FEW = 4
_KEPT_BYTES = 4 << 20
"""Bytes of a model up to which quantized models are kept for their correction."""
_MEASURED_BYTES = 64 << 20
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
    if not _noise_calibrators(model, recipe):
        return tensor_ranges.WHOLE_MODEL
    return (PLAINEST, LEAST_NOISE, PER_TENSOR)


def _noise_calibrators(model: Model, recipe: Recipe) -> tuple[str, ...]:
    """Return the calibrators whose noise is measured tensor by tensor; none where that costs too much."""
    if obstacle(model) or grid_of(recipe.scheme) is not INT8:
        return ()
    for names in (tensor_ranges.ALL, tensor_ranges.WHEN_COSTLY):
        if _measurable_samples(model, names) >= _TOO_FEW:
            return names
    return ()


def _measurable_samples(model: Model, names: Sequence[str]) -> int:
    """Return on how many samples the noise of single tensors can be measured under these calibrators."""
    if len(model.data) > _MEASURED_BYTES:
        return 0
    runs = len(names) * len(tflite_file.activations(model.parsed)) * macs(model) / 2
    return int(min(_MEASURED, MEASURED_MACS / max(runs, 1.0)))


class Maker:
    """Makes integer models of one float model, fitted on one set of samples.

    Args:
        model: a normalized float model.
        histograms: of these samples, where they are known.
        choices: of an earlier maker, where its choice of calibrators shall stay; by whether equalized.
    """

    def __init__(
        self,
        model: Model,
        fit: FitSamples,
        *,
        recipe: Recipe,
        fixed_ranges: FixedRanges,
        histograms: Mapping[str, Histogram] | None = None,
        choices: Mapping[bool, Choice] | None = None,
    ) -> None:
        self._fit, self._recipe = fit, recipe
        self._grid = grid_of(recipe.scheme)
        self._fixed = fixed_ranges(fit)
        self._floats: dict[bool, Model] = {False: model}
        self._histograms: dict[bool, Mapping[str, Histogram]] = {}
        if histograms is not None:
            self._histograms[False] = histograms
        self.choices: dict[bool, Choice] = dict(choices or {})
        self._kept: dict[tuple[str, bool], Quantized] = {}

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
        if equalized not in self.choices:
            model = self.floating(equalized)
            names = _noise_calibrators(model, self._recipe)
            count = _measurable_samples(model, names)
            self.choices[equalized] = tensor_ranges.choose(
                model,
                self._observed(equalized),
                self._bounded(subset(self._fit, count)),
                names=names,
                grid=self._grid,
            )
        return self.choices[equalized]

    def _bounded(self, samples: FitSamples) -> FitSamples:
        return subset(samples, max(_MEMORY // max(memory_per_sample(self._floats[False]), 1), 8))
