"""The whole-model choice of calibrator, equalization and correction, by samples that were held out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from edgeq_converters.calibration import observe
from edgeq_converters.calibration.calibrators import AUTO
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.qparams import INT8, INT16, Grid
from edgeq_converters.data.samples import Samples, in_one_order
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.cost import macs, memory_per_sample, obstacle
from edgeq_converters.progress import Advance, Step, ignore
from edgeq_converters.quantization import correction, equalization, quantize
from edgeq_converters.quantization.autotune import tensor_ranges
from edgeq_converters.quantization.autotune.scoring import Judge, split, taken
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.values import Scheme

PER_TENSOR = "per-tensor"
"""Not a calibrator of one histogram: each tensor has the one of `tensor_ranges` that its logits want."""

_FEWEST = 16
"""Samples below which none can be spared for judging."""
_HEAVY = 20_000_000_000
"""Multiplications of a pass over all samples from which fewer candidates are corrected."""
_MEMORY = 512 << 20
"""Bytes that the activations of a correction may take."""
_LARGE = 32 << 20
"""Bytes of a model from which one candidate is corrected at a time: each holds copies of it."""
_SCREENED = 48
_SCREENED_ROWS = 4096
"""Samples, and outputs of each layer, that a candidate is corrected on before the choice."""
_MEASURED = 32
_MEASURED_MACS = 250_000_000_000
"""Samples that a tensor's noise is measured on, and multiplications that this may take in all."""
_TOO_FEW = 4
_MEASURED_BYTES = 64 << 20
"""Bytes of a model from which tensors are not measured: the rest of the model is packed for each of them."""


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

    The samples are split by the recipe's seed. With and without equalization, every tensor's noise at the
    logits is measured under several calibrators; the best one for all tensors and the best one for each are
    made, the best of these are corrected, the signal-to-noise ratio at the logits on the held-out part
    decides, and what it chose is made again with all samples. How much is tried follows from the size of the
    model, never from a clock.

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
        self.tensors: dict[bool, Mapping[str, str]] = {}
        self.grid: Grid = INT16 if recipe.scheme is Scheme.INT16X8 else INT8
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
        if few or (given != AUTO and len(equalize) == len(correct) == 1):
            if few and (given == AUTO or len(equalize) + len(correct) > 2):
                self.notes.append(
                    f"{len(self.samples)} samples are too few to hold some out: min/max ranges, no correction"
                    " where it was left open"
                )
            return self._made("minmax" if given == AUTO else given, equalize[0], correct[0])
        return self._chosen(equalize, correct)

    def _options(self, switch: Switch, *, possible: bool) -> tuple[bool, ...]:
        if switch is Switch.OFF or not possible:
            return (False,)
        return (True,) if switch is Switch.ON else (False, True)

    def _chosen(self, equalize: tuple[bool, ...], correct: tuple[bool, ...]) -> Best:
        fit, held = split(self.samples, seed=self.recipe.seed)
        heavy = macs(self.model) * len(self.samples) > _HEAVY
        judge = Judge(self.floats[False], held, subject=self.subject)
        advance = self.step("choose calibrator, equalization and correction", 3 * len(equalize))
        per_kind = 1 if heavy else 2
        plain: list[tuple[Score, bytes]] = []  # a large model's candidates are large: the finalists only
        for equalized in equalize:
            self._prepare(equalized, fit, held)
            calibrators = self._calibrators(equalized, fit)
            advance(1)
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
            self._repair(plain, taken(fit, _SCREENED), judge)
        advance(len(equalize))
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

    def _calibrators(self, equalized: bool, fit: Samples) -> tuple[str, ...]:
        """Return what is made under the recipe's calibrator, the plainest first."""
        if self.recipe.calibrator != AUTO:
            return (self.recipe.calibrator,)
        whole = tensor_ranges.WHOLE
        names = tensor_ranges.NAMES if self._measured(tensor_ranges.NAMES) >= _TOO_FEW else tensor_ranges.FEW
        count = self._measured(names)
        if count < _TOO_FEW or obstacle(self.model) or self.grid is not INT8:
            return whole
        choice = tensor_ranges.choose(
            self.floats[equalized],
            self.fitted[equalized],
            self._bounded(taken(fit, count)),
            names=names,
            grid=self.grid,
            subject=self.subject,
        )
        self.tensors[equalized] = choice.calibrators
        best = min(choice.noise, key=lambda name: choice.noise[name])
        plainest = () if equalized else whole[:1]  # what the gain is told against
        return tuple(dict.fromkeys((*plainest, best, PER_TENSOR)))

    def _measured(self, names: Sequence[str]) -> int:
        """Return how many samples a tensor's noise can be measured on."""
        if len(self.floats[False]) > _MEASURED_BYTES:
            return 0
        runs = len(names) * len(tflite_file.activations(self.model)) * macs(self.model) / 2
        return int(min(_MEASURED, _MEASURED_MACS / max(runs, 1.0)))

    def _repair(self, plain: Sequence[tuple[Score, bytes]], shown: Samples, judge: Judge) -> None:
        """Correct the finalists on some of the samples, and keep what they reach then."""

        def reached(pair: tuple[Score, bytes]) -> float:
            score, data = pair
            return judge.score(self._correct(score.equalized, data, shown, rows=_SCREENED_ROWS))

        # What one correction computes does not depend on what runs beside it.
        workers = 1 if len(self.floats[False]) > _LARGE else min(os.cpu_count() or 1, 2)
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(reached, plain))
        for (score, _), sqnr_db in zip(plain, found, strict=True):
            self.scores.append(replace(score, corrected=True, sqnr_db=sqnr_db))

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
        quiet = ignore
        if data is self.floats[False] and equalized:  # nothing to equalize: the same model
            self.fitted[True], self.all[True] = self.fitted[False], self.all[False]
            return
        first = observe.observe(data, fit, subject=self.subject, advance=quiet)
        self.fitted[equalized] = first
        if equalized:
            second = observe.observe(data, held, subject=self.subject, advance=quiet)
            self.all[True] = {name: found.merge(second[name]) for name, found in first.items()}

    def _equalize(self) -> None:
        shown = self._bounded(self.samples)
        self.floats[True] = equalization.equalize(
            self.floats[False], shown, subject=self.subject, advance=ignore
        ).data

    def _bounded(self, samples: Samples) -> Samples:
        return taken(samples, max(_MEMORY // max(memory_per_sample(self.model), 1), 8))

    def _quantized(self, calibrator: str, equalized: bool, histograms: Mapping[str, Histogram]) -> bytes:
        data = self.floats[equalized]
        if calibrator == PER_TENSOR:
            ranges = tensor_ranges.ranges(
                data, histograms, self.tensors[equalized], grid=self.grid, subject=self.subject
            )
        else:
            ranges = observe.ranges(
                data, histograms, calibrator=calibrator, subject=self.subject, grid=self.grid
            )
        ranges |= dict(self.extra)
        made = quantize.make(data, recipe=self.recipe, ranges=ranges, subject=self.subject)
        self.backend, self.made_notes = made.backend, made.notes
        return made.data

    def _correct(
        self,
        equalized: bool,
        data: bytes,
        samples: Samples,
        *,
        rows: int = correction.ROWS,
        advance: Advance | None = None,
    ) -> bytes:
        return correction.correct(
            self.floats[equalized],
            data,
            self._bounded(samples),
            subject=self.subject,
            advance=advance or ignore,
            # Rounding anew would move pruned weights away from zero, and what pruning bought with them.
            terms=correction.Terms(weights=not (self.recipe.prune or "").startswith("magnitude"), rows=rows),
            seed=self.recipe.seed,
        )

    def _made(self, calibrator: str, equalized: bool, corrected: bool) -> Best:
        if equalized and True not in self.floats:
            self._equalize()
        if equalized and True not in self.all:
            self.all[True] = observe.observe(
                self.floats[True], self.samples, subject=self.subject, advance=ignore
            )
        self.step("quantize", 1)
        data = self._quantized(calibrator, equalized, self.all[equalized])
        if corrected:
            count = len(tflite_file.parse(data, subject=self.subject).subgraphs[0].operators)
            data = self._correct(equalized, data, self.samples, advance=self.step("correct", count))
        return Best(
            data=data,
            backend=self.backend,
            calibrator=calibrator,
            equalized=equalized,
            corrected=corrected,
            scores=tuple(self.scores),
            notes=(*self.notes, *self.made_notes),
        )


def told(score: Score) -> str:
    """Return a candidate in words."""
    extras = [name for name, on in (("equalized", score.equalized), ("corrected", score.corrected)) if on]
    return " ".join([f"{score.calibrator} ranges", *([", ".join(extras)] if extras else [])])
