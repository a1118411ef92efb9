"""Choose one calibrator for the whole model or one per tensor, equalization, and correction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16, Grid
from edgeq_converters.calibration.ranges import TensorRange, calibrated_ranges
from edgeq_converters.data.samples import Samples, canonical_order, subset
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.cost import macs, memory_per_sample, obstacle
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance, Step, ignore
from edgeq_converters.quantization import correction, equalization
from edgeq_converters.quantization.autotune import tensor_ranges
from edgeq_converters.quantization.autotune.scoring import LogitsScorer, split_held_out
from edgeq_converters.quantization.quantize import Quantized, quantize
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.values import Caution, Scheme

PER_TENSOR = "per-tensor"
"""Not a calibrator: each tensor has the calibrator that adds least noise at the logits (`tensor_ranges`)."""

_FEWEST = 16
"""Samples below which none are held out."""
_HEAVY = 20_000_000_000
"""Multiplications of a pass over all samples, above which fewer candidates are corrected."""
_MEMORY = 512 << 20
"""Bytes that the activations of a correction may take."""
_LARGE = 32 << 20
"""Bytes of a model above which one candidate is corrected at a time: each correction holds copies of it."""
_SCREENED = 48
_SCREENED_ROWS = 4096
"""Samples, and outputs of each layer, on which a candidate is corrected before the choice."""
_MEASURED = 32
MEASURED_MACS = 250_000_000_000
"""Most samples, and most multiplications in all, to measure the noise of single tensors with."""
_TOO_FEW = 4
_MEASURED_BYTES = 64 << 20
"""Bytes of a model above which single tensors are not measured: that packs the rest of the model for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of one candidate.

    Attributes:
        sqnr_db: at the logits, on the held-out samples.
    """

    calibrator: str
    equalized: bool
    corrected: bool
    sqnr_db: float

    def __str__(self) -> str:
        extras = [name for name, on in (("equalized", self.equalized), ("corrected", self.corrected)) if on]
        return " ".join([f"{self.calibrator} ranges", *([", ".join(extras)] if extras else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The chosen model, made with all samples.

    Attributes:
        backend: the library that quantized it.
        scores: of all candidates, in the order of the search; empty if the recipe left nothing to choose.
        notes: remarks for the user: what was chosen, and what it gained.
    """

    model: Model
    backend: str
    calibrator: str
    equalized: bool
    corrected: bool
    scores: tuple[Score, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    score: Score
    model: Model


def is_needed(recipe: Recipe) -> bool:
    """Return whether a recipe leaves a choice, or asks for equalization or correction."""
    switches = (recipe.equalization, recipe.bias_correction)
    return recipe.calibrator == AUTO or any(switch is not Switch.OFF for switch in switches)


def choose(
    model: Model,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    *,
    recipe: Recipe,
    fixed_ranges: Mapping[str, TensorRange],
    step: Step,
) -> Best:
    """Return the best integer model under a recipe.

    The recipe's seed splits the samples into one part to fit on and one held out. With and without
    equalization, the noise of each tensor at the logits is measured under several calibrators. Two models
    follow: with the best calibrator for all tensors, and with the best one for each. The better of these are
    corrected. The SQNR at the logits on the held-out samples decides, and the winner is made again with all
    samples.

    How much is tried depends on the size of the model, never on a clock. The same samples, in any order, and
    the same seed give the same bytes.

    Args:
        model: a normalized float model.
        histograms: of all samples.
        fixed_ranges: ranges that no calibrator decides.

    Raises:
        ConverterError: as the quantizer and LiteRT do.
    """
    return _Search(model, histograms, canonical_order(samples), recipe, fixed_ranges, step).run()


class _Search:
    def __init__(
        self,
        model: Model,
        histograms: Mapping[str, Histogram],
        samples: Samples,
        recipe: Recipe,
        fixed_ranges: Mapping[str, TensorRange],
        step: Step,
    ) -> None:
        self.recipe, self.samples, self.step = recipe, samples, step
        self.fixed_ranges = fixed_ranges
        self.model = model
        # By whether the model is equalized: the float model, the histograms of all samples and of those to
        # fit on, and the calibrator of each tensor.
        self.floats: dict[bool, Model] = {False: model}
        self.all: dict[bool, Mapping[str, Histogram]] = {False: histograms}
        self.fitted: dict[bool, Mapping[str, Histogram]] = {}
        self.tensors: dict[bool, Mapping[str, str]] = {}
        self.grid: Grid = INT16 if recipe.scheme is Scheme.INT16X8 else INT8
        self.scores: list[Score] = []
        self.notes: list[str] = []
        self.dropped: list[ConverterError] = []

    def run(self) -> Best:
        why_not = obstacle(self.model)
        if why_not:
            self.notes.append(f"neither equalized nor corrected: {why_not}")
        equalize = self._options(self.recipe.equalization, possible=not why_not)
        correct = self._options(self.recipe.bias_correction, possible=not why_not)
        calibrator = self.recipe.calibrator
        few = len(self.samples) < _FEWEST
        if few or (calibrator != AUTO and len(equalize) == len(correct) == 1):
            if few and (calibrator == AUTO or len(equalize) + len(correct) > 2):
                self.notes.append(
                    Caution(
                        f"{len(self.samples)} samples are too few to hold some out: `auto` means min/max"
                        " ranges without equalization or correction"
                    )
                )
            return self._finish("minmax" if calibrator == AUTO else calibrator, equalize[0], correct[0])
        return self._search(equalize, correct)

    def _options(self, switch: Switch, *, possible: bool) -> tuple[bool, ...]:
        if switch is Switch.OFF or not possible:
            return (False,)
        return (True,) if switch is Switch.ON else (False, True)

    def _search(self, equalize: tuple[bool, ...], correct: tuple[bool, ...]) -> Best:
        fit, held_out = split_held_out(self.samples, seed=self.recipe.seed)
        heavy = macs(self.model) * len(self.samples) > _HEAVY
        scorer = LogitsScorer(self.model, held_out)
        advance = self.step("choose calibrator, equalization and correction", 3 * len(equalize))
        per_kind = 1 if heavy else 2
        finalists: list[_Candidate] = []  # only these are kept in memory: each is as large as the model
        for equalized in equalize:
            try:
                self._observe_parts(equalized, fit, held_out)
                calibrators = self._calibrators(equalized, fit)
            except ConverterError as error:
                if not equalized or len(equalize) == 1:
                    raise
                self._drop("equalization", error)
                continue
            advance(1)
            for calibrator in calibrators:
                try:
                    model = self._quantize(calibrator, equalized, self.fitted[equalized]).model
                    sqnr_db = scorer.sqnr_db(model)
                except ConverterError as error:
                    self._drop(f"{calibrator} ranges{', equalized' if equalized else ''}", error)
                    continue
                score = Score(calibrator=calibrator, equalized=equalized, corrected=False, sqnr_db=sqnr_db)
                self.scores.append(score)
                finalists = _best_of_kind([*finalists, _Candidate(score=score, model=model)], per_kind)
                del model
            advance(1)
        if True in correct:
            self._score_corrected(finalists, subset(fit, _SCREENED), scorer)
        advance(len(equalize))
        allowed = [score for score in self.scores if score.corrected in correct]
        if not allowed and self.dropped:
            raise self.dropped[0]
        winner = max(allowed, key=lambda score: score.sqnr_db)  # among equals the first, which does least
        first = self.scores[0]
        self.notes.append(
            f"{winner}: {winner.sqnr_db:.1f} dB at the logits on {len(held_out)} held-out samples;"
            f" {first}: {first.sqnr_db:.1f} dB"
        )
        del scorer, finalists  # they hold copies of the model
        if not winner.equalized:
            self.floats.pop(True, None)
        return self._finish(winner.calibrator, winner.equalized, winner.corrected)

    def _calibrators(self, equalized: bool, fit: Samples) -> tuple[str, ...]:
        """Return the calibrators to make models with, the plainest first."""
        if self.recipe.calibrator != AUTO:
            return (self.recipe.calibrator,)
        whole = tensor_ranges.WHOLE_MODEL
        names = tensor_ranges.ALL
        if self._measurable_samples(names) < _TOO_FEW:
            names = tensor_ranges.WHEN_COSTLY
        count = self._measurable_samples(names)
        if count < _TOO_FEW or obstacle(self.model) or self.grid is not INT8:
            return whole
        choice = tensor_ranges.choose(
            self.floats[equalized],
            self.fitted[equalized],
            self._bounded(subset(fit, count)),
            names=names,
            grid=self.grid,
        )
        self.tensors[equalized] = choice.calibrators
        best = min(choice.noise, key=lambda name: choice.noise[name])
        baseline = () if equalized else whole[:1]  # the note compares the winner with it
        return tuple(dict.fromkeys((*baseline, best, PER_TENSOR)))

    def _measurable_samples(self, names: Sequence[str]) -> int:
        """Return on how many samples the noise of single tensors can be measured under these calibrators."""
        if len(self.model.data) > _MEASURED_BYTES:
            return 0
        runs = len(names) * len(tflite_file.activations(self.model.parsed)) * macs(self.model) / 2
        return int(min(_MEASURED, MEASURED_MACS / max(runs, 1.0)))

    def _score_corrected(
        self, finalists: Sequence[_Candidate], samples: Samples, scorer: LogitsScorer
    ) -> None:
        """Correct each finalist on some of the samples, and record its score after that."""

        def corrected_db(candidate: _Candidate) -> float | ConverterError:
            equalized = candidate.score.equalized
            try:
                return scorer.sqnr_db(self._correct(equalized, candidate.model, samples, rows=_SCREENED_ROWS))
            except ConverterError as error:
                return error

        # Corrections do not affect each other: running two at a time gives the same result.
        workers = 1 if len(self.model.data) > _LARGE else min(os.cpu_count() or 1, 2)
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(corrected_db, finalists))
        for candidate, result in zip(finalists, results, strict=True):
            corrected = replace(candidate.score, corrected=True)
            if isinstance(result, ConverterError):
                self._drop(str(corrected), result)
            else:
                self.scores.append(replace(corrected, sqnr_db=result))

    def _drop(self, what: str, error: ConverterError) -> None:
        """Leave a candidate out that cannot be made or does not run; the others decide."""
        self.dropped.append(error)
        self.notes.append(f"{what}: left out, because {error.problem or error}")

    def _observe_parts(self, equalized: bool, fit: Samples, held_out: Samples) -> None:
        """Take the histograms of both parts of the samples; merged, they are those of all samples."""
        if equalized:
            self._equalize()
        model = self.floats[equalized]
        if model is self.model and equalized:  # there was nothing to equalize
            self.fitted[True], self.all[True] = self.fitted[False], self.all[False]
            return
        fitted = observe(model, fit, advance=ignore)
        self.fitted[equalized] = fitted
        if equalized:
            rest = observe(model, held_out, advance=ignore)
            self.all[True] = {name: histogram.merge(rest[name]) for name, histogram in fitted.items()}

    def _equalize(self) -> None:
        self.floats[True] = equalization.equalize(
            self.model, self._bounded(self.samples), advance=ignore
        ).model

    def _bounded(self, samples: Samples) -> Samples:
        return subset(samples, max(_MEMORY // max(memory_per_sample(self.model), 1), 8))

    def _quantize(self, calibrator: str, equalized: bool, histograms: Mapping[str, Histogram]) -> Quantized:
        model = self.floats[equalized]
        if calibrator == PER_TENSOR:
            ranges = tensor_ranges.per_tensor_ranges(
                model, histograms, self.tensors[equalized], grid=self.grid
            )
        else:
            ranges = calibrated_ranges(model, histograms, calibrator=calibrator, grid=self.grid)
        return quantize(model, recipe=self.recipe, ranges={**ranges, **self.fixed_ranges})

    def _correct(
        self,
        equalized: bool,
        model: Model,
        samples: Samples,
        *,
        rows: int = correction.ROWS,
        advance: Advance = ignore,
    ) -> Model:
        # Rounding again would move pruned weights away from zero, and undo what pruning gained.
        keep_zeros = (self.recipe.prune or "").startswith("magnitude")
        return correction.correct(
            self.floats[equalized],
            model,
            self._bounded(samples),
            advance=advance,
            terms=correction.Terms(weights=not keep_zeros, rows=rows),
            seed=self.recipe.seed,
        )

    def _finish(self, calibrator: str, equalized: bool, corrected: bool) -> Best:
        if equalized and True not in self.floats:
            self._equalize()
        if equalized and True not in self.all:
            self.all[True] = observe(self.floats[True], self.samples, advance=ignore)
        self.step("quantize", 1)
        quantized = self._quantize(calibrator, equalized, self.all[equalized])
        model = quantized.model
        if corrected:
            advance = self.step("correct", len(model.graph.operators))
            model = self._correct(equalized, model, self.samples, advance=advance)
        return Best(
            model=model,
            backend=quantized.backend,
            calibrator=calibrator,
            equalized=equalized,
            corrected=corrected,
            scores=tuple(self.scores),
            notes=(*self.notes, *quantized.notes),
        )


def _best_of_kind(candidates: Sequence[_Candidate], count: int) -> list[_Candidate]:
    """Return the best `count` of the plain candidates, and as many of the equalized ones."""
    best: list[_Candidate] = []
    for equalized in (False, True):
        kind = [each for each in candidates if each.score.equalized is equalized]
        best.extend(sorted(kind, key=lambda each: -each.score.sqnr_db)[:count])
    return best
