"""Figures of a multi-label model beside its float model: F1 and average precision of each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends, percentile_ci95
from edgeq.evaluation.undefined import finite, mean

Real = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """One label of one model, 0..1.

    Attributes:
        f1: None where no sample has the label and none gets it.
        average_precision: area under precision over recall; None where no sample has the label.
    """

    f1: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """One label of both models; `support` counts the samples that have it."""

    index: int
    name: str
    support: int
    reference: LabelScore
    variant: LabelScore


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabel:
    """Figures of a multi-label model.

    Attributes:
        threshold: value from which a label counts as given: 0.5 for values in 0..1, 0 for logits.
        reference_micro_f1, micro_f1: F1 over all labels of all samples together.
        reference_macro_f1, macro_f1: mean of F1 over the labels that have one.
        reference_map, mean_average_precision: mean of the labels that have one; None where none has.
        micro_f1_drop: the float model's micro F1 minus the variant's.
        micro_f1_drop_ci95: paired percentile bootstrap; None for samples that depend on each other.
    """

    threshold: float
    of_each: tuple[LabelFigures, ...]
    reference_micro_f1: float | None
    micro_f1: float | None
    reference_macro_f1: float | None
    macro_f1: float | None
    reference_map: float | None
    mean_average_precision: float | None
    micro_f1_drop: float | None
    micro_f1_drop_ci95: Ends | None


def multi_label_of(
    reference: Real,
    variant: Real,
    labels: npt.NDArray[Any],
    *,
    names: Sequence[str] = (),
    independent: bool = True,
    seed: int = 0,
) -> MultiLabel:
    """Return the figures of two multi-label models on the same samples. A pure function.

    Args:
        reference, variant: finite outputs (samples, labels); the float model's decide the threshold.
        labels: 0 or 1, (samples, labels).
        names: of the labels; their indices without them.
        independent: whether the samples are independent of each other; there is no interval otherwise.
        seed: of the bootstrap.
    """
    truth = labels.astype(np.bool_)
    count = truth.shape[1]
    threshold = 0.5 if reference.min() >= 0 and reference.max() <= 1 else 0.0
    given = reference >= threshold, variant >= threshold
    f1 = [_f1(truth, each) for each in given]
    precision = [_average_precision(truth, each) for each in (reference, variant)]
    terms = np.stack([each.sum(axis=1) for pair in given for each in (pair & truth, pair ^ truth)], axis=1)
    micro = [_micro(terms.sum(axis=0, dtype=np.float64)[None], model) for model in (0, 1)]
    drop = micro[0][0] - micro[1][0]
    return MultiLabel(
        threshold=threshold,
        of_each=tuple(
            LabelFigures(
                index=i,
                name=names[i] if i < len(names) else str(i),
                support=int(truth[:, i].sum()),
                reference=LabelScore(f1=f1[0][i], average_precision=precision[0][i]),
                variant=LabelScore(f1=f1[1][i], average_precision=precision[1][i]),
            )
            for i in range(count)
        ),
        reference_micro_f1=finite(micro[0][0]),
        micro_f1=finite(micro[1][0]),
        reference_macro_f1=mean(f1[0]),
        macro_f1=mean(f1[1]),
        reference_map=mean(precision[0]),
        mean_average_precision=mean(precision[1]),
        micro_f1_drop=finite(drop),
        micro_f1_drop_ci95=percentile_ci95(
            terms, lambda sums: np.asarray(_micro(sums, 0) - _micro(sums, 1)), seed=seed
        )
        if independent
        else None,
    )


def _micro(sums: Real, model: int) -> Real:
    """Return 2 TP / (2 TP + FP + FN) of each resample; NaN without a label that is given or right."""
    hits, misses = sums[:, 2 * model], sums[:, 2 * model + 1]
    both = 2 * hits + misses
    return np.where(both > 0, 2 * hits / np.where(both > 0, both, 1.0), np.nan)


def _f1(truth: Flags, given: Flags) -> list[float | None]:
    from sklearn.metrics import f1_score

    return [finite(f1_score(truth[:, i], given[:, i], zero_division=np.nan)) for i in range(truth.shape[1])]


def _average_precision(truth: Flags, scores: Real) -> list[float | None]:
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(truth[:, i], scores[:, i])) if truth[:, i].any() else None
        for i in range(truth.shape[1])
    ]
