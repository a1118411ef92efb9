"""Calibration of a classifier's probabilities beside its float model's: ECE, Brier score, likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends, percentile_ci95

Real = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
BINS = 15
_SUM = 1e-2
"""How far the sum of a row of probabilities may be from 1."""
_FLOOR = float(np.finfo(np.float32).eps)


class Scores(StrEnum):
    """What the values of an output are."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One bin of the reliability diagram.

    Attributes:
        low, high: the confidences in it, low excluded, high included; the first bin includes 0.
        samples: how many are in it.
        confidence: mean of their largest probability; None for an empty bin.
        accuracy: share of them that is right; None for an empty bin.
    """

    low: float
    high: float
    samples: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far a model's probabilities are its accuracy.

    Attributes:
        ece: expected calibration error over BINS bins of equal width, 0..1.
        ece_ci95: percentile bootstrap; None for samples that depend on each other.
        ece_adaptive: over BINS bins of about as many samples.
        brier: mean over the samples of the squared distance to the label's row of 0 and 1, 0..2.
        nll: mean negative logarithm of the label's probability.
        bins: of equal width.
    """

    ece: float
    ece_ci95: Ends | None
    ece_adaptive: float
    brier: float
    nll: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilities:
    """The calibration of both models.

    Attributes:
        scores: what the float model's output holds; logits get a softmax in both models.
        floor: a smaller probability of a label counts as this in the likelihood of both models.
    """

    scores: Scores
    floor: float
    reference: Calibration
    variant: Calibration


def scores_of(output: Real) -> Scores:
    """Return what rows of values are: probabilities if none is negative and each sum is 1 within 0.01.

    Args:
        output: (samples, classes), of a float model.
    """
    sums = np.abs(output.sum(axis=1) - 1)
    return Scores.PROBABILITIES if output.min() >= 0 and sums.max() <= _SUM else Scores.LOGITS


def probabilities_of(
    reference: Real,
    variant: Real,
    labels: Indices,
    *,
    step: float | None = None,
    independent: bool = True,
    seed: int = 0,
) -> Probabilities | None:
    """Return the calibration of two classifiers; None where an output holds NaN or infinity.

    Args:
        reference, variant: outputs (samples, classes).
        labels: (samples,), 0..classes - 1.
        step: the real value of one step of the variant's quantized output; None for a float output. A
            probability below half a step is 0 there, whatever it was.
        independent: whether the samples are independent of each other; there are no intervals otherwise.
        seed: of the bootstrap.
    """
    if not (np.isfinite(reference).all() and np.isfinite(variant).all()):
        return None
    scores = scores_of(reference)
    floor = step / 2 if step is not None and scores is Scores.PROBABILITIES else _FLOOR
    seeds = seed if independent else None
    return Probabilities(
        scores=scores,
        floor=floor,
        reference=calibration_of(as_probabilities(reference, scores), labels, floor=floor, seed=seeds),
        variant=calibration_of(as_probabilities(variant, scores), labels, floor=floor, seed=seeds),
    )


def as_probabilities(output: Real, scores: Scores) -> Real:
    """Return an output as probabilities: the softmax of logits; else the values as they are, within 0..1.

    The rows of a quantized softmax need not have the sum 1. An application reads them as they are.
    """
    if scores is Scores.LOGITS:
        from scipy.special import softmax

        shares: Real = softmax(output, axis=1)
        return shares
    return np.clip(output, 0.0, 1.0)


def calibration_of(
    probabilities: Real, labels: Indices, *, floor: float = _FLOOR, seed: int | None = None
) -> Calibration:
    """Return the calibration of one model. A pure function.

    The expected calibration error is that of the largest probability (Guo et al. 2017, arXiv 1706.04599):
    the mean distance of confidence and accuracy in the bins, weighted by their samples. Bins of equal counts
    follow Nixon et al. 2019 (arXiv 1904.01685). The Brier score is the one of several classes
    (Brier 1950).

    Args:
        probabilities: (samples, classes), 0..1.
        floor: the least probability in the likelihood.
        seed: of the interval's bootstrap; None for no interval.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, BINS + 1)
    places = np.searchsorted(edges[1:-1], confidence)
    quantiles = np.unique(np.quantile(confidence, edges[1:-1]))
    own = probabilities[np.arange(len(labels)), labels]
    terms = _terms(confidence, right, places)
    return Calibration(
        ece=float(_ece(terms.sum(axis=0)[None])[0]),
        ece_ci95=None if seed is None else percentile_ci95(terms, _ece, seed=seed),
        ece_adaptive=float(
            _ece(_terms(confidence, right, np.searchsorted(quantiles, confidence)).sum(axis=0)[None])[0]
        ),
        brier=float((np.square(probabilities).sum(axis=1) - 2 * own + 1).mean()),
        nll=float(-np.log(np.maximum(own, floor)).mean()),
        bins=_bins(edges, places, confidence, right),
    )


def _terms(confidence: Real, right: npt.NDArray[np.bool_], places: npt.NDArray[np.intp]) -> Real:
    """Return (samples, bins + 1): confidence minus accuracy in the sample's bin, and a 1 that counts it."""
    terms = np.zeros((len(places), BINS + 1))
    terms[np.arange(len(places)), places] = confidence - right
    terms[:, -1] = 1.0
    return terms


def _ece(sums: Real) -> Real:
    return np.asarray(np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1], np.float64)


def _bins(
    edges: Real, places: npt.NDArray[np.intp], confidence: Real, right: npt.NDArray[np.bool_]
) -> tuple[ReliabilityBin, ...]:
    result = []
    for number in range(BINS):
        inside = places == number
        any_inside = bool(inside.any())
        result.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                samples=int(inside.sum()),
                confidence=float(confidence[inside].mean()) if any_inside else None,
                accuracy=float(right[inside].mean()) if any_inside else None,
            )
        )
    return tuple(result)
