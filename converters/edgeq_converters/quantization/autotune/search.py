"""Choose one calibrator for the whole model or one per tensor, equalization, and correction."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.data.partition import Fold, Partition, all_to_fit, distinct, partition
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.cost import macs, obstacle
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.quantization.autotune import verdict
from edgeq_converters.quantization.autotune.judging import Judge, Powers, joined
from edgeq_converters.quantization.autotune.making import (
    PLAINEST,
    Candidate,
    FixedRanges,
    Maker,
    calibrators_to_try,
)
from edgeq_converters.quantization.autotune.tensor_ranges import Choice
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.values import Caution, Claim

FEWEST = 16
"""Different samples below which none are held out."""
_HEAVY = 20_000_000_000
"""Multiplications of a pass over all samples, above which fewer candidates are corrected, in one fold."""
_LARGE = 32 << 20
"""Bytes of a model above which one candidate is corrected at a time: each correction holds copies of it."""
_SCREENED = 48
_SCREENED_ROWS = 4096
"""Samples, and outputs of each layer, on which a candidate is corrected before the choice."""


_Drop = Callable[[Candidate, ConverterError], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of one candidate.

    Attributes:
        sqnr_db: at the logits, on the held-out samples of all folds.
    """

    candidate: Candidate
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The chosen model, made with all samples.

    Attributes:
        backend: the library that quantized it.
        calibrator: of its ranges.
        scores: of all candidates, in the order of the search; empty if the recipe left nothing to choose.
        claim: what it reaches on other samples; None where none were held out.
        notes: remarks for the user: what was chosen, and what it gained.
    """

    model: Model
    backend: str
    calibrator: str
    equalized: bool
    corrected: bool
    scores: tuple[Score, ...]
    claim: Claim | None
    notes: tuple[str, ...]


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
    fixed_ranges: FixedRanges,
    step: Step,
    judged: Partition | None = None,
) -> Best:
    """Return the best integer model under a recipe.

    The recipe's seed divides the samples into those to fit on and those held out; with few samples, several
    times, so that each is held out once (`data.partition`). In each fold the candidates are made from the
    samples to fit on alone: ranges, the calibrator of each tensor, equalization, correction. Their noise on
    the held-out samples of all folds decides. The plain candidate wins doubts, and of equal ones the smaller
    model (`verdict.best`). The winner is made again with all samples.

    How much is tried depends on the size of the model, never on a clock. The same samples, in any order, and
    the same seed give the same bytes.

    Args:
        model: a normalized float model.
        histograms: of all samples; only the final model is made from them.
        fixed_ranges: ranges that no calibrator decides, from the samples to fit on.
        judged: the division of the samples, where something was chosen before; None divides them here.

    Raises:
        ConverterError: as the quantizer and LiteRT do.
    """
    return _Search(model, histograms, samples, recipe, fixed_ranges, step, judged).run()


class _Search:
    def __init__(
        self,
        model: Model,
        histograms: Mapping[str, Histogram],
        samples: Samples,
        recipe: Recipe,
        fixed_ranges: FixedRanges,
        step: Step,
        judged: Partition | None,
    ) -> None:
        self.judged = judged
        self.model, self.histograms, self.samples = model, histograms, samples
        self.recipe, self.fixed_ranges, self.step = recipe, fixed_ranges, step
        self.notes: list[str] = []
        self.dropped: list[ConverterError] = []

    def run(self) -> Best:
        why_not = obstacle(self.model)
        if why_not:
            self.notes.append(f"neither equalized nor corrected: {why_not}")
        equalize = self._options(self.recipe.equalization, possible=not why_not)
        correct = self._options(self.recipe.bias_correction, possible=not why_not)
        calibrator = self.recipe.calibrator
        few = distinct(self.samples) < FEWEST
        if few or (calibrator != AUTO and len(equalize) == len(correct) == 1):
            if few and (calibrator == AUTO or len(equalize) + len(correct) > 2):
                self.notes.append(
                    Caution(
                        f"{len(self.samples)} samples are too few to hold some out: `auto` means min/max"
                        " ranges without equalization or correction"
                    )
                )
            plain = PLAINEST if calibrator == AUTO else calibrator
            return self._finish(Candidate(calibrator=plain, equalized=equalize[0], corrected=correct[0]))
        return self._search(equalize, correct)

    def _options(self, switch: Switch, *, possible: bool) -> tuple[bool, ...]:
        if switch is Switch.OFF or not possible:
            return (False,)
        return (True,) if switch is Switch.ON else (False, True)

    def _search(self, equalize: tuple[bool, ...], correct: tuple[bool, ...]) -> Best:
        heavy = macs(self.model) * len(self.samples) > _HEAVY
        large = len(self.model.data) > _LARGE
        parts = self.judged or partition(
            self.samples, seed=self.recipe.seed, cross_fit=not heavy and not large
        )
        advance = self.step("choose calibrator, equalization and correction", 2 * len(parts.folds))
        calibrators = calibrators_to_try(self.model, self.recipe)
        plain = [
            Candidate(calibrator=calibrator, equalized=equalized)
            for equalized in equalize
            # Plain ranges are there to compare with, and are once enough.
            for calibrator in (calibrators if not equalized or len(calibrators) == 1 else calibrators[1:])
        ]
        folds = [_FoldSearch(self, fold) for fold in parts.folds]
        for fold in folds:
            plain = [each for each in plain if fold.judge_plain(each, self._drop)]
            advance(1)
        signal = joined([fold.judge.signal for fold in folds])
        noises = {each: joined([fold.noises[each] for fold in folds]) for each in plain}
        if True in correct:
            finalists = _best_of_kind(plain, signal, noises, 1 if heavy or parts.cross_fitted else 2)
            corrected = [replace(each, corrected=True) for each in plain if each in finalists]
            for fold in folds:
                corrected = fold.judge_corrected(corrected, self._drop)
                advance(1)
            noises |= {each: joined([fold.noises[each] for fold in folds]) for each in corrected}
        allowed = [each for each in noises if each.corrected in correct]
        if not allowed and self.dropped:
            raise self.dropped[0]
        choices = folds[0].maker.choices if not parts.cross_fitted else None
        sizes = [folds[0].sizes[each] for each in allowed]
        del folds  # they hold copies of the model
        return self._decide(allowed, signal, noises, sizes, parts, choices)

    def _decide(
        self,
        allowed: Sequence[Candidate],
        signal: Powers,
        noises: Mapping[Candidate, Powers],
        sizes: Sequence[int],
        parts: Partition,
        choices: Mapping[bool, Choice] | None,
    ) -> Best:
        held_out = [noises[each] for each in allowed]
        winner = allowed[verdict.best(signal, held_out, sizes)]
        claim = verdict.claim(signal, held_out, sizes, folds=len(parts.folds), seed=self.recipe.seed)
        done = self._finish(winner, choices)
        named = replace(winner, calibrator=done.calibrator)
        scores = tuple(
            Score(candidate=each, sqnr_db=verdict.logits_db(signal, noise)) for each, noise in noises.items()
        )
        note = f"{named}: {claim}"
        if winner != allowed[0]:
            note += f"; {allowed[0]}: {claim.plain_db:.1f} dB"
        return replace(done, scores=scores, claim=claim, notes=(note, *done.notes))

    def _drop(self, what: Candidate, error: ConverterError) -> None:
        """Leave a candidate out that cannot be made or does not run; the others decide."""
        self.dropped.append(error)
        self.notes.append(f"{what}: left out, because {error.problem or error}")

    def _finish(self, winner: Candidate, choices: Mapping[bool, Choice] | None = None) -> Best:
        maker = Maker(
            self.model,
            all_to_fit(self.samples),
            recipe=self.recipe,
            fixed_ranges=self.fixed_ranges,
            histograms=self.histograms,
            choices=choices,
        )
        self.step("quantize", 1)
        quantized = maker.quantized(winner)
        model = quantized.model
        if winner.corrected:
            advance = self.step("correct", len(model.graph.operators))
            model = maker.corrected(winner, model, advance=advance)
        return Best(
            model=model,
            backend=quantized.backend,
            calibrator=maker.resolved(winner),
            equalized=winner.equalized,
            corrected=winner.corrected,
            scores=(),
            claim=None,
            notes=(*self.notes, *quantized.notes),
        )


class _FoldSearch:
    """The candidates of one fold and their noise on its held-out samples."""

    def __init__(self, search: _Search, fold: Fold) -> None:
        self.maker = Maker(search.model, fold.fit, recipe=search.recipe, fixed_ranges=search.fixed_ranges)
        self.judge = Judge(search.model, fold.held_out)
        self.noises: dict[Candidate, Powers] = {}
        self.sizes: dict[Candidate, int] = {}
        self._by_resolved: dict[Candidate, tuple[Powers, int]] = {}
        self._large = len(search.model.data) > _LARGE

    def judge_plain(self, candidate: Candidate, drop: _Drop) -> bool:
        """Judge an uncorrected candidate; False if it was dropped."""
        try:
            key = replace(candidate, calibrator=self.maker.resolved(candidate))
            if key not in self._by_resolved:
                model = self.maker.quantized(candidate).model
                self._by_resolved[key] = self.judge.noise(model), len(model.data)
            self.noises[candidate], self.sizes[candidate] = self._by_resolved[key]
        except ConverterError as error:
            drop(candidate, error)
            return False
        return True

    def judge_corrected(self, candidates: Sequence[Candidate], drop: _Drop) -> list[Candidate]:
        """Judge corrected candidates; return those that were not dropped."""

        def noise(candidate: Candidate) -> tuple[Powers, int] | ConverterError:
            try:
                model = self.maker.quantized(candidate).model
                corrected = self.maker.corrected(candidate, model, samples=_SCREENED, rows=_SCREENED_ROWS)
                return self.judge.noise(corrected), len(corrected.data)
            except ConverterError as error:
                return error

        # Corrections do not affect each other: running two at a time gives the same result.
        workers = 1 if self._large else min(os.cpu_count() or 1, 2)
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(noise, candidates))
        kept = []
        for candidate, result in zip(candidates, results, strict=True):
            if isinstance(result, ConverterError):
                drop(candidate, result)
            else:
                self.noises[candidate], self.sizes[candidate] = result
                kept.append(candidate)
        return kept


def _best_of_kind(
    candidates: Sequence[Candidate], signal: Powers, noises: Mapping[Candidate, Powers], count: int
) -> list[Candidate]:
    """Return the best `count` of the candidates that are not equalized, and as many of the equalized ones."""
    best: list[Candidate] = []
    for equalized in (False, True):
        kind = [each for each in candidates if each.equalized is equalized]
        kind.sort(key=lambda each: -verdict.logits_db(signal, noises[each]))
        best.extend(kind[:count])
    return best
