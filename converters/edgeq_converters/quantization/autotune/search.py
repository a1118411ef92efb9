"""Choose one calibrator for the whole model or one per tensor, equalization, and correction."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits

from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.observed import Observed
from edgeq_converters.data.partition import Fold, Partition, all_to_fit, distinct, partition
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.cost import macs, obstacle, values_per_sample
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.quantization.autotune import verdict
from edgeq_converters.quantization.autotune.effort import LIMITS, Limits
from edgeq_converters.quantization.autotune.judging import Judge, Powers, joined
from edgeq_converters.quantization.autotune.making import (
    PLAINEST,
    Candidate,
    FixedRanges,
    Maker,
    calibrators_to_try,
)
from edgeq_converters.quantization.columns import NO_SIZES, ColumnSizes
from edgeq_converters.quantization.quantize import Quantized
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.values import Caution, Claim

FEWEST = 16
"""Different samples below which none are held out."""
_LARGE = 32 << 20
"""Bytes of a model above which one candidate is corrected at a time: each correction holds copies of it."""


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
        maker: that made it of all samples.
        winner: what it made.
    """

    model: Model
    backend: str
    calibrator: str
    equalized: bool
    corrected: bool
    scores: tuple[Score, ...]
    claim: Claim | None
    notes: tuple[str, ...]
    maker: Maker
    winner: Candidate

    def made(self, recipe: Recipe, correct: bool) -> Quantized:
        """Return a model with the same choices under a recipe that names other operations.

        Args:
            correct: whether it is corrected if the chosen one was.
        """
        maker = self.maker.with_recipe(recipe)
        quantized = maker.quantized(self.winner)
        if not correct or not self.winner.corrected:
            return quantized
        limits = LIMITS[recipe.effort]
        model = maker.corrected(self.winner, quantized.model, samples=limits.samples, rows=limits.rows)
        return replace(quantized, model=model)


def is_needed(recipe: Recipe) -> bool:
    """Return whether a recipe leaves a choice, or asks for equalization or correction."""
    switches = (recipe.equalization, recipe.bias_correction)
    return recipe.calibrator == AUTO or any(switch is not Switch.OFF for switch in switches)


def division(model: Model, samples: Samples, *, recipe: Recipe) -> Partition | None:
    """Return how `choose` divides the samples; None where it holds none out."""
    return _divided(model, samples, recipe) if is_needed(recipe) and distinct(samples) >= FEWEST else None


def _divided(model: Model, samples: Samples, recipe: Recipe) -> Partition:
    limits, passes = LIMITS[recipe.effort], len(samples)
    # Few samples may be held out in several folds, where that does not cost too much.
    cross_fit = (
        len(model.data) <= _LARGE
        and macs(model) * passes <= limits.cross_fit_macs
        and values_per_sample(model) * passes <= limits.cross_fit_values
    )
    return partition(samples, seed=recipe.seed, cross_fit=cross_fit)


def choose(
    model: Model,
    observed: Observed,
    samples: Samples,
    *,
    recipe: Recipe,
    fixed_ranges: FixedRanges,
    step: Step,
    judged: Partition | None = None,
    sizes: ColumnSizes = NO_SIZES,
) -> Best:
    """Return the best integer model under a recipe.

    The recipe's seed divides the samples into those to fit on and those held out; with few samples, several
    times, so that each is held out once (`data.partition`). In each fold the candidates are made from the
    samples to fit on alone: ranges, the calibrator of each tensor, equalization, correction. Their noise on
    the held-out samples of all folds decides. The plain candidate wins doubts, and of equal ones the smaller
    model (`verdict.best`). The winner is made again with all samples, except with the effort `quick`.

    How much is tried depends on the size of the model, never on a clock. The same samples, in any order, and
    the same seed give the same bytes.

    Args:
        model: a normalized float model.
        observed: histograms of all samples, which only the final model is made from, and of parts of them.
        fixed_ranges: ranges that no calibrator decides, from the samples to fit on.
        judged: the division of the samples, where something was chosen before; None divides them here.
        sizes: that were divided out of the model's outputs; the claim is about the outputs before.

    Raises:
        ConverterError: as the quantizer and LiteRT do.
    """
    # Candidates are corrected beside each other: threads inside a matrix product would wait for each other.
    # A large model has one at a time.
    threads = 1 if len(model.data) <= _LARGE else None
    with threadpool_limits(limits=threads, user_api="blas"):
        return _Search(model, observed, samples, recipe, fixed_ranges, step, judged, sizes).run()


class _Search:
    def __init__(
        self,
        model: Model,
        observed: Observed,
        samples: Samples,
        recipe: Recipe,
        fixed_ranges: FixedRanges,
        step: Step,
        judged: Partition | None,
        sizes: ColumnSizes,
    ) -> None:
        self.judged, self.sizes = judged, sizes
        self.model, self.observed, self.samples = model, observed, samples
        self.recipe, self.fixed_ranges, self.step = recipe, fixed_ranges, step
        self.limits = LIMITS[recipe.effort]
        self.notes: list[str] = []
        self.dropped: list[ConverterError] = []

    def run(self) -> Best:
        why_not = obstacle(self.model)
        if why_not:
            self.notes.append(f"neither equalized nor corrected: {why_not}")
        equalize = self._options(self.recipe.equalization, possible=not why_not)
        if not self.limits.equalizes and self.recipe.equalization is Switch.AUTO:
            equalize = (False,)
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
        parts = self.judged or _divided(self.model, self.samples, self.recipe)
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
            count = 1 if parts.cross_fitted else self.limits.finalists
            finalists = _best_of_kind(plain, signal, noises, self.limits, count)
            corrected = [replace(each, corrected=True) for each in plain if each in finalists]
            for fold in folds:
                corrected = fold.judge_corrected(corrected, self._drop)
                advance(1)
            noises |= {each: joined([fold.noises[each] for fold in folds]) for each in corrected}
        allowed = [each for each in noises if each.corrected in correct]
        if not allowed and self.dropped:
            raise self.dropped[0]
        sizes = [folds[0].sizes[each] for each in allowed]
        held_out = [noises[each] for each in allowed]
        winner = allowed[verdict.best(signal, held_out, sizes)]
        claim = verdict.claim(signal, held_out, sizes, folds=len(parts.folds), seed=self.recipe.seed)
        if parts.cross_fitted or self.limits.remakes:
            maker = None if parts.cross_fitted else self._extended(folds[0].maker, parts.folds[0])
            del folds  # they hold copies of the model
            done = self._finish(winner, maker)
        else:
            done = self._best(winner, folds[0].maker, folds[0].made(winner))
        return self._described(done, winner, allowed[0], claim, signal, noises)

    def _described(
        self,
        done: Best,
        winner: Candidate,
        plainest: Candidate,
        claim: Claim,
        signal: Powers,
        noises: Mapping[Candidate, Powers],
    ) -> Best:
        named = replace(winner, calibrator=done.calibrator)
        scores = tuple(
            Score(candidate=each, sqnr_db=verdict.logits_db(signal, noise)) for each, noise in noises.items()
        )
        note = f"{named}: {claim}"
        if winner != plainest:
            note += f"; {plainest}: {claim.plain_db:.1f} dB"
        return replace(done, scores=scores, claim=claim, notes=(note, *done.notes))

    def _drop(self, what: Candidate, error: ConverterError) -> None:
        """Leave a candidate out that cannot be made or does not run; the others decide."""
        self.dropped.append(error)
        self.notes.append(f"{what}: left out, because {error.problem or error}")

    def _extended(self, maker: Maker, fold: Fold) -> Maker:
        return maker.extended(
            fold.held_out,
            fit=all_to_fit(self.samples),
            fixed_ranges=self.fixed_ranges,
            histograms=self.observed.all,
        )

    def _finish(self, winner: Candidate, maker: Maker | None = None) -> Best:
        """Make the winner of all samples, by a maker that knows choices already or by a new one."""
        maker = maker or Maker(
            self.model,
            all_to_fit(self.samples),
            recipe=self.recipe,
            fixed_ranges=self.fixed_ranges,
            histograms=self.observed.all,
        )
        self.step("quantize", 1)
        quantized = maker.quantized(winner)
        if winner.corrected:
            model = quantized.model
            advance = self.step("correct", len(model.graph.operators))
            corrected = maker.corrected(
                winner, model, samples=self.limits.samples, rows=self.limits.rows, advance=advance
            )
            quantized = replace(quantized, model=corrected)
        return self._best(winner, maker, quantized)

    def _best(self, winner: Candidate, maker: Maker, quantized: Quantized) -> Best:
        return Best(
            model=quantized.model,
            backend=quantized.backend,
            calibrator=maker.resolved(winner),
            equalized=winner.equalized,
            corrected=winner.corrected,
            scores=(),
            claim=None,
            notes=(*self.notes, *quantized.notes),
            maker=maker,
            winner=winner,
        )


class _FoldSearch:
    """The candidates of one fold and their noise on its held-out samples."""

    def __init__(self, search: _Search, fold: Fold) -> None:
        self.maker = Maker(
            search.model,
            fold.fit,
            recipe=search.recipe,
            fixed_ranges=search.fixed_ranges,
            histograms=search.observed.of(fold.fit),
        )
        self.judge = Judge(search.model, fold.held_out, search.sizes)
        self.noises: dict[Candidate, Powers] = {}
        self.sizes: dict[Candidate, int] = {}
        self._corrected: dict[Candidate, Model] = {}
        self._by_resolved: dict[Candidate, tuple[Powers, int]] = {}
        self._limits = search.limits
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
                corrected = self.maker.corrected(
                    candidate, model, samples=self._limits.screened, rows=self._limits.screened_rows
                )
                if not self._limits.remakes:
                    self._corrected[candidate] = corrected
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

    def made(self, candidate: Candidate) -> Quantized:
        """Return a judged candidate as it was judged."""
        quantized = self.maker.quantized(candidate)
        return replace(quantized, model=self._corrected[candidate]) if candidate.corrected else quantized


def _best_of_kind(
    candidates: Sequence[Candidate],
    signal: Powers,
    noises: Mapping[Candidate, Powers],
    limits: Limits,
    count: int,
) -> list[Candidate]:
    """Return the best `count` of the candidates that are not equalized, and as many of the equalized ones.

    A kind whose best is far behind the other's is left out: its correction would hardly close the gap.
    """
    best: list[Candidate] = []
    scores = {each: verdict.logits_db(signal, noises[each]) for each in candidates}
    for equalized in (False, True):
        kind = [each for each in candidates if each.equalized is equalized]
        kind.sort(key=lambda each: -scores[each])
        if kind and scores[kind[0]] >= max(scores.values()) - limits.margin_db:
            best.extend(kind[:count])
    return best
