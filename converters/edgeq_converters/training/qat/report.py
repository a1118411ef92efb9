"""The report of a quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeq_converters.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningReport:
    """The outcome of one quantization-aware training.

    Attributes:
        epochs: how many were trained.
        best_epoch: the epoch whose weights were kept; 0 is the state before training.
        kept: `qat`, or `ptq` where training did not help: model and recipe are then those of plain
            post-training quantization.
        began: the starting point in words: equalized or not, and the calibrator of the initial ranges.
        tensors: number of activations with a learned range.
        accuracy: top-1 on held-out samples, 0..1: `float` before training, `tuned` as a float model, and the
            integer files `ptq` and `qat`. Each is None without labels.
        agreement: share of the float model's answers that `ptq` and `qat` give on held-out samples
            (`edgeq_converters.agreement`); None for a model without answers.
        agreement_of: what the answers are: `classes`, `boxes` or `mask`; None without any.
        samples: number of held-out samples.
        recipe: the conversion's recipe with the learned ranges.
        notes: what was done, for the user.
        warnings: what may be wrong with the result.
        accuracy_ci95, agreement_ci95: 95 % intervals of these shares (`edgeq_converters.intervals`).
        accuracy_drop: accuracy of `float` minus that of `ptq`, `tuned` and `qat`; None without labels.
        accuracy_drop_ci95: 95 % intervals of the drops, for paired samples.
        smallest_drop: the smallest drop that the held-out samples could show; None where there is none.
        loss: the user's loss of `float`, `tuned`, `ptq` and `qat` on held-out samples; None without one.
        sqnr_db: of the worst output of `tuned`, `ptq` and `qat` against `float`, on held-out samples; None
            where nothing differs, or an output is zero.
        useless: in words why the integer file is useless; None where it is not.
    """

    epochs: int
    best_epoch: int
    kept: str
    began: str
    tensors: int
    accuracy: Mapping[str, float | None]
    agreement: Mapping[str, float | None]
    samples: int
    recipe: Recipe
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    useless: str | None = None
    agreement_of: str | None = None
    accuracy_ci95: Mapping[str, tuple[float, float] | None]
    agreement_ci95: Mapping[str, tuple[float, float] | None]
    accuracy_drop: Mapping[str, float | None]
    accuracy_drop_ci95: Mapping[str, tuple[float, float] | None]
    smallest_drop: float | None = None
    loss: Mapping[str, float | None]
    sqnr_db: Mapping[str, float | None]
