"""Figures of anomaly scores beside the float model's: areas under the ROC and precision-recall curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends, percentile_ci95_of_counts

Real = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyScore:
    """One model, 0..1.

    Attributes:
        auc: area under the ROC curve: the chance that an anomaly has a higher score than a normal sample.
        average_precision: area under precision over recall.
    """

    auc: float
    average_precision: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """Both models.

    Attributes:
        score: what an anomaly score is: the output, or the error of a reconstruction.
        anomalies: samples with label 1.
        auc_drop: the float model's area under the ROC curve minus the variant's.
        auc_drop_ci95: paired percentile bootstrap; None for samples that depend on each other.
    """

    score: str
    anomalies: int
    reference: AnomalyScore
    variant: AnomalyScore
    auc_drop: float
    auc_drop_ci95: Ends | None


def reconstruction_error(output: Real, inputs: npt.NDArray[Any]) -> Real:
    """Return the mean squared difference of each sample's output and input."""
    values = inputs.reshape(len(inputs), -1).astype(np.float64)
    return np.asarray(np.square(output.reshape(len(output), -1) - values).mean(axis=1))


def anomaly_of(
    reference: Real,
    variant: Real,
    labels: npt.NDArray[Any],
    *,
    score: str,
    independent: bool = True,
    seed: int = 0,
) -> Anomaly:
    """Return the figures of two models' scores on the same samples. A pure function.

    Args:
        reference, variant: finite scores (samples,); a higher one means an anomaly.
        labels: (samples,): 1 for an anomaly, 0 for a normal sample; both occur.
        score: what the scores are.
        independent: whether the samples are independent of each other; there is no interval otherwise.
        seed: of the bootstrap.
    """
    anomalous = labels.astype(np.bool_)
    scores = [_score(each, anomalous) for each in (reference, variant)]
    return Anomaly(
        score=score,
        anomalies=int(anomalous.sum()),
        reference=scores[0],
        variant=scores[1],
        auc_drop=scores[0].auc - scores[1].auc,
        auc_drop_ci95=percentile_ci95_of_counts(
            len(labels),
            lambda counts: np.asarray(
                weighted_auc(reference, anomalous, counts) - weighted_auc(variant, anomalous, counts)
            ),
            seed=seed,
        )
        if independent
        else None,
    )


def _score(scores: Real, anomalous: npt.NDArray[np.bool_]) -> AnomalyScore:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return AnomalyScore(
        auc=float(roc_auc_score(anomalous, scores)),
        average_precision=float(average_precision_score(anomalous, scores)),
    )


def weighted_auc(scores: Real, anomalous: npt.NDArray[np.bool_], counts: Real) -> Real:
    """Return the area under the ROC curve of each resample; NaN where it lacks one of the two kinds.

    The Mann-Whitney form: the share of pairs in which the anomaly has the higher score; equal scores count
    half.

    Args:
        scores: (samples,).
        anomalous: (samples,).
        counts: how often each resample has each sample, (resamples, samples).
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    drawn = counts[:, order]
    positive = np.add.reduceat(drawn * anomalous[order], starts, axis=1)
    negative = np.add.reduceat(drawn * ~anomalous[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = (positive * (below + negative / 2)).sum(axis=1)
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan)
