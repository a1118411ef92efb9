"""The whole-model choice of calibrator, equalization and correction, by samples that were held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq_converters import calibration, correction, equalization, inference, logits, quantizer, tflite_file
from edgeq_converters.calibrators import AUTO
from edgeq_converters.correction.cost import macs, memory_per_sample, obstacle
from edgeq_converters.grid import INT8, INT16
from edgeq_converters.histogram import Histogram
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.samples import Samples, in_one_order, to_real
from edgeq_converters.values import Scheme

Step = Callable[[str, int], inference.Advance]
CANDIDATES = ("minmax", "percentile:99.99", "percentile:99.999", "mse")
"""The calibrators that are tried; the first is the one that the gain is told against."""

_FEWEST = 16
"""Samples below which none can be spared for judging."""
_HELD_OUT = 0.25
_MOST_HELD_OUT = 64
_HEAVY = 20_000_000_000
"""Multiplications of a pass over all samples from which fewer candidates are corrected."""
_MEMORY = 512 << 20
"""Bytes that the activations of a correction may take."""
_SCREENED = 48
"""Samples that a candidate is corrected on before the choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a candidate reached.

    Attributes:
        sqnr_db: at the logits, on the samples that were held out.
    """

    calibrator: str
    equalized: bool
    corrected: bool
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The model that was chosen, made again with all samples.

    Attributes:
        scores: of all candidates, in the order in which they were tried; empty where there was no choice.
        notes: what was chosen and what it bought.
    """

    data: bytes
    backend: str
    calibrator: str
    equalized: bool
    corrected: bool
    scores: tuple[Score, ...]
    notes: tuple[str, ...]


def wanted(recipe: Recipe) -> bool:
    """Return whether a recipe leaves a choice or asks for equalization or correction."""
    switches = (recipe.equalization, recipe.bias_correction)
    return recipe.calibrator == AUTO or any(switch is not Switch.OFF for switch in switches)


def best(
    base: bytes,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    *,
    recipe: Recipe,
    extra_ranges: Mapping[str, Any],
    subject: str,
    step: Step,
) -> Best:
    """Return the best integer model under a recipe; the same samples, in any order, and seed give the same
    bytes.

    The samples are split by the recipe's seed. Every calibrator is tried with and without equalization; the
    best of each are corrected; the signal-to-noise ratio at the logits on the held-out part decides, and what
    it chose is made again with all samples. How much is tried follows from the size of the model, never from
    a clock.

    Args:
        base: a float .tflite with unique tensor names.
        histograms: of all samples.
        extra_ranges: ranges by tensor that stand whatever the calibrator says.

    Raises:
        ConverterError: as the quantizer and LiteRT do.
    """
    ordered = in_one_order(samples)
    return _Search(base, histograms, ordered, recipe, extra_ranges, subject, step).run()


class _Search:
    def __init__(
        self,
        base: bytes,
        histograms: Mapping[str, Histogram],
        samples: Samples,
        recipe: Recipe,
        extra_ranges: Mapping[str, Any],
        subject: str,
        step: Step,
    ) -> None:
        self.recipe, self.samples, self.subject, self.step = recipe, samples, subject, step
        self.extra = extra_ranges
        self.floats: dict[bool, bytes] = {False: base}
        self.all: dict[bool, Mapping[str, Histogram]] = {False: histograms}
        self.fitted: dict[bool, Mapping[str, Histogram]] = {}
        self.made_notes: tuple[str, ...] = ()
        self.scores: list[Score] = []
        self.notes: list[str] = []
        self.backend = ""
        self.model = tflite_file.parse(base, subject=subject)

    def run(self) -> Best:
        why = obstacle(self.model)
        if why:
            self.notes.append(f"neither equalized nor corrected: {why}")
        equalize = self._options(self.recipe.equalization, possible=not why)
        correct = self._options(self.recipe.bias_correction, possible=not why)
        given = self.recipe.calibrator
        few = len(self.samples) < _FEWEST
        calibrators = CANDIDATES if given == AUTO else (given,)
        if few or (len(calibrators) == len(equalize) == len(correct) == 1):
            if few and self._undecided(calibrators, equalize, correct):
                self.notes.append(
                    f"{len(self.samples)} samples are too few to hold some out: min/max ranges, no correction"
                    " where it was left open"
                )
            return self._made(calibrators[0], equalize[0], correct[0])
        return self._chosen(calibrators, equalize, correct)

    def _options(self, switch: Switch, *, possible: bool) -> tuple[bool, ...]:
        if switch is Switch.OFF or not possible:
            return (False,)
        return (True,) if switch is Switch.ON else (False, True)

    @staticmethod
    def _undecided(*options: tuple[Any, ...]) -> bool:
        return any(len(option) > 1 for option in options)

    def _chosen(
        self, calibrators: tuple[str, ...], equalize: tuple[bool, ...], correct: tuple[bool, ...]
    ) -> Best:
        fit, held = split(self.samples, seed=self.recipe.seed)
        heavy = macs(self.model) * len(self.samples) > _HEAVY
        if heavy and len(calibrators) > 1:
            calibrators = tuple(name for name in calibrators if name != "percentile:99.999")
        judge = _Judge(self.floats[False], held, self.subject)
        advance = self.step(
            "choose calibrator, equalization and correction", len(calibrators) * len(equalize)
        )
        per_kind = 1 if heavy else 2
        plain: list[tuple[Score, bytes]] = []  # a large model's candidates are large: the finalists only
        for equalized in equalize:
            self._prepare(equalized, fit, held)
            for calibrator in calibrators:
                data = self._quantized(calibrator, equalized, self.fitted[equalized])
                score = Score(
                    calibrator=calibrator, equalized=equalized, corrected=False, sqnr_db=judge.score(data)
                )
                self.scores.append(score)
                plain = self._finalists([*plain, (score, data)], per_kind=per_kind)
                del data
                advance(1)
        if True in correct:
            shown = taken(fit, _SCREENED)
            for score, data in plain:
                repaired = self._correct(score.equalized, data, shown)
                reached = judge.score(repaired)
                self.scores.append(replace(score, corrected=True, sqnr_db=reached))
        allowed = [score for score in self.scores if score.corrected in correct]
        winner = max(allowed, key=lambda score: score.sqnr_db)  # the first of equals: the plainest
        first = self.scores[0]
        self.notes.append(
            f"{told(winner)}: {winner.sqnr_db:.1f} dB at the logits on {len(held)} held-out samples, where"
            f" {told(first)} gives {first.sqnr_db:.1f} dB"
        )
        del judge, plain  # and what they hold of the model
        if not winner.equalized:
            self.floats.pop(True, None)
        return self._made(winner.calibrator, winner.equalized, winner.corrected)

    def _finalists(self, plain: list[tuple[Score, bytes]], *, per_kind: int) -> list[tuple[Score, bytes]]:
        found = []
        for equalized in (False, True):
            kind = [pair for pair in plain if pair[0].equalized is equalized]
            found.extend(sorted(kind, key=lambda pair: -pair[0].sqnr_db)[:per_kind])
        return found

    def _prepare(self, equalized: bool, fit: Samples, held: Samples) -> None:
        """Take the histograms of both parts; together they are those of all samples."""
        if equalized:
            self._equalize()
        data = self.floats[equalized]
        quiet = _quiet
        if data is self.floats[False] and equalized:  # nothing to equalize: the same model
            self.fitted[True], self.all[True] = self.fitted[False], self.all[False]
            return
        first = calibration.observe(data, fit, subject=self.subject, advance=quiet)
        self.fitted[equalized] = first
        if equalized:
            second = calibration.observe(data, held, subject=self.subject, advance=quiet)
            self.all[True] = {name: found.merge(second[name]) for name, found in first.items()}

    def _equalize(self) -> None:
        shown = self._bounded(self.samples)
        self.floats[True] = equalization.equalize(
            self.floats[False], shown, subject=self.subject, advance=_quiet
        ).data

    def _bounded(self, samples: Samples) -> Samples:
        return taken(samples, max(_MEMORY // max(memory_per_sample(self.model), 1), 8))

    def _quantized(self, calibrator: str, equalized: bool, histograms: Mapping[str, Histogram]) -> bytes:
        data = self.floats[equalized]
        grid = INT16 if self.recipe.scheme is Scheme.INT16X8 else INT8
        ranges = calibration.ranges(data, histograms, calibrator=calibrator, subject=self.subject, grid=grid)
        ranges |= dict(self.extra)
        recipe = replace(self.recipe, calibrator=calibrator)
        made = quantizer.make(data, recipe=recipe, ranges=ranges, subject=self.subject)
        self.backend, self.made_notes = made.backend, made.notes
        return made.data

    def _correct(
        self, equalized: bool, data: bytes, samples: Samples, advance: inference.Advance | None = None
    ) -> bytes:
        return correction.correct(
            self.floats[equalized],
            data,
            self._bounded(samples),
            subject=self.subject,
            advance=advance or _quiet,
            # Rounding anew would move pruned weights away from zero, and what pruning bought with them.
            terms=correction.Terms(weights=not (self.recipe.prune or "").startswith("magnitude")),
            seed=self.recipe.seed,
        )

    def _made(self, calibrator: str, equalized: bool, corrected: bool) -> Best:
        if equalized and True not in self.floats:
            self._equalize()
        if equalized and True not in self.all:
            self.all[True] = calibration.observe(
                self.floats[True], self.samples, subject=self.subject, advance=_quiet
            )
        self.step("quantize", 1)
        data = self._quantized(calibrator, equalized, self.all[equalized])
        if corrected:
            count = len(tflite_file.parse(data, subject=self.subject).subgraphs[0].operators)
            data = self._correct(equalized, data, self.samples, self.step("correct", count))
        return Best(
            data=data,
            backend=self.backend,
            calibrator=calibrator,
            equalized=equalized,
            corrected=corrected,
            scores=tuple(self.scores),
            notes=(*self.notes, *self.made_notes),
        )


def _quiet(amount: int) -> None:
    del amount


def told(score: Score) -> str:
    """Return a candidate in words."""
    extras = [name for name, on in (("equalized", score.equalized), ("corrected", score.corrected)) if on]
    return " ".join([f"{score.calibrator} ranges", *([", ".join(extras)] if extras else [])])


def split(samples: Samples, *, seed: int) -> tuple[Samples, Samples]:
    """Return (samples to fit, samples that were held out), by the seed, each in the old order."""
    order = np.random.default_rng(seed).permutation(len(samples))
    held = min(max(int(len(samples) * _HELD_OUT), 1), _MOST_HELD_OUT)
    return _picked(samples, np.sort(order[held:])), _picked(samples, np.sort(order[:held]))


def taken(samples: Samples, count: int) -> Samples:
    """Return at most `count` samples, evenly from the whole."""
    if len(samples) <= count:
        return samples
    return _picked(samples, np.linspace(0, len(samples) - 1, count).round().astype(np.intp))


def _picked(samples: Samples, rows: Any) -> Samples:
    return replace(samples, arrays=tuple(array[rows] for array in samples.arrays))


class _Judge:
    """Compares integer models with the float model at the logits, on samples that neither was fitted on."""

    def __init__(self, floating: bytes, held: Samples, subject: str) -> None:
        self._held, self._subject = held, subject
        self._wanted = self._logits(floating)

    def _logits(self, data: bytes) -> list[Any]:
        cut = logits.cut(data, subject=self._subject).data
        _, infos = tflite_file.inputs_and_outputs(tflite_file.parse(cut, subject=self._subject))
        found = inference.outputs(cut, self._held, subject=self._subject, advance=_quiet)
        return [to_real(array, info) for array, info in zip(found, infos, strict=True)]

    def score(self, data: bytes) -> float:
        """Return the mean over the outputs of the signal-to-noise ratio in dB."""
        return float(
            np.mean(
                [sqnr_db(one, other) for one, other in zip(self._wanted, self._logits(data), strict=True)]
            )
        )


def sqnr_db(wanted: Any, got: Any) -> float:
    """Return 10 log10 of the wanted values' power over the error's, at most 200."""
    noise = float(np.square(wanted - got).sum())
    power = float(np.square(wanted).sum())
    return 10 * float(np.log10(max(power, 1e-30) / max(noise, power * 1e-20, 1e-30)))
