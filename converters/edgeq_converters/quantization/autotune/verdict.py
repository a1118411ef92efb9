"""Choose among candidates by their held-out noise, and claim what the chosen one reaches on other samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.quantization.autotune.judging import Powers
from edgeq_converters.values import Claim

Array = npt.NDArray[Any]
_RESAMPLES = 1000
_DOUBT = 1.645
"""Standard errors of a one-sided test at 5 %: what must lie between a candidate and the plain one."""
_DECIBELS = 10 / np.log(10)
_NO_SIGNAL = 1e-30
_EXACT = 1e-20
"""The least share of noise, so that a mean of decibels stays finite: 200 dB."""


def logits_db(signal: Powers, noise: Powers) -> float:
    """Return the mean of the outputs' SQNR at the logits, in dB."""
    counts = np.ones((1, len(signal)))
    return float(_mean_db(counts @ signal.logits, counts @ noise.logits)[0])


def outputs_db(signal: Powers, noise: Powers) -> float:
    """Return the SQNR over all outputs, in dB."""
    return float(_decibels(signal.outputs.sum(), noise.outputs.sum()))


def best(signal: Powers, noises: Sequence[Powers], sizes: Sequence[int]) -> int:
    """Return the candidate with the best SQNR at the logits of those that beat the first beyond doubt.

    Where none does, that is the first, the plain one. Doubt is one-sided at 5 %: the gain over the first must
    exceed 1.645 standard errors of the paired difference over the samples (linearized: each sample's
    influence on both sums). Among equals the smaller model wins, then the earlier candidate.

    Args:
        noises: of each candidate on the same samples.
        sizes: of each candidate's model, in bytes.
    """
    return int(_winners(signal, noises, sizes, np.ones((1, len(signal))))[0])


def claim(signal: Powers, noises: Sequence[Powers], sizes: Sequence[int], *, folds: int, seed: int) -> Claim:
    """Return what the chosen candidate reaches on samples that nothing was fitted on.

    The samples are resampled 1000 times (bootstrap), and the choice is repeated on each resample. The mean
    excess of a resample's winner there over the same candidate on the original samples is the optimism of the
    choice (Efron 1983), which is taken off the SQNR. The 95 % interval is that of the bootstrap-t (Efron and
    Tibshirani 1993, section 12.5) of the repeated choice, whose standard errors are linearized.

    The interval ends at the SQNR of the worst and the best sample. Where one sample holds nearly all of the
    noise, resamples without it have hardly an error, and their steps no bound.

    Args:
        folds: by which the samples were held out.
    """
    chosen = best(signal, noises, sizes)
    counts = _resamples(len(signal), seed)
    winners = _winners(signal, noises, sizes, counts)
    point = outputs_db(signal, noises[chosen])
    whole = np.ones((1, len(signal)))
    values = np.empty(len(counts))
    originals = np.empty(len(counts))
    errors = np.empty(len(counts))
    for index in np.unique(winners):
        rows = winners == index
        noise = noises[index]
        values[rows], errors[rows] = _output_db_and_error(signal, noise, counts[rows])
        originals[rows] = _output_db_and_error(signal, noise, whole)[0][0]
    optimism = max(float(np.mean(values - originals)), 0.0)
    error = float(_output_db_and_error(signal, noises[chosen], whole)[1][0])
    steps = (values - originals) / np.maximum(errors, 1e-9)
    low, high = np.quantile(steps, (0.025, 0.975))
    middle = point - optimism
    worst, best_db = _single_samples(signal, noises[chosen])
    return Claim(
        output_sqnr_db=middle,
        # The steps hold the optimism already: they are counted from the SQNR before it was taken off.
        low_db=min(max(point - high * error, worst), middle),
        high_db=max(min(point - low * error, best_db), middle),
        logits_db=logits_db(signal, noises[chosen]),
        plain_db=outputs_db(signal, noises[0]),
        samples=len(signal),
        folds=folds,
    )


def _single_samples(signal: Powers, noise: Powers) -> tuple[float, float]:
    """Return the SQNR of the worst and of the best sample, in dB."""
    least = np.maximum(noise.outputs, np.maximum(signal.outputs * _EXACT, _NO_SIGNAL))
    values = 10 * np.log10(np.maximum(signal.outputs, _NO_SIGNAL) / least)
    return float(values.min()), float(values.max())


def _resamples(count: int, seed: int) -> Array:
    random = np.random.default_rng((seed, 17))
    return random.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).astype(np.float64)


def _winners(signal: Powers, noises: Sequence[Powers], sizes: Sequence[int], counts: Array) -> Array:
    """Return the chosen candidate of each resample.

    Args:
        counts: (resamples, samples), how often each sample is in a resample.
    """
    signals = counts @ signal.logits
    totals = [np.maximum(counts @ noise.logits, np.maximum(signals * _EXACT, _NO_SIGNAL)) for noise in noises]
    scores = np.stack([_mean_db(signals, total) for total in totals], axis=1)
    size = counts.sum(axis=1)
    first = noises[0].logits
    for index in range(1, len(noises)):
        gain = np.mean(_DECIBELS * np.log(totals[0] / totals[index]), axis=1)
        # The influence of each sample on the gain: (resamples, samples).
        influence = np.zeros(counts.shape)
        for output in range(first.shape[1]):
            influence += np.outer(size / totals[0][:, output], first[:, output])
            influence -= np.outer(size / totals[index][:, output], noises[index].logits[:, output])
        influence *= _DECIBELS / first.shape[1]
        error = np.sqrt((counts * np.square(influence)).sum(axis=1)) / size
        equal = (gain == 0) & (error == 0)
        scores[:, index] = np.where((gain > _DOUBT * error) | equal, scores[:, index], -np.inf)
    # Of equal scores the first is taken: the smallest model, then the earliest candidate.
    order = np.argsort(np.asarray(sizes), kind="stable")
    winners: Array = order[scores[:, order].argmax(axis=1)]
    return winners


def _output_db_and_error(signal: Powers, noise: Powers, counts: Array) -> tuple[Array, Array]:
    """Return (the SQNR over all outputs, its standard error) of each resample, in dB."""
    size = counts.sum(axis=1)
    signals, noises = counts @ signal.outputs, counts @ noise.outputs
    noises = np.maximum(noises, np.maximum(signals * _EXACT, _NO_SIGNAL))
    signals = np.maximum(signals, _NO_SIGNAL)
    influence = np.outer(size / signals, signal.outputs) - np.outer(size / noises, noise.outputs)
    error = _DECIBELS * np.sqrt((counts * np.square(influence)).sum(axis=1)) / size
    return _decibels(signals, noises), error


def _mean_db(signals: Array, noises: Array) -> Array:
    return np.asarray(_decibels(signals, noises).mean(axis=1))


def _decibels(signal: Any, noise: Any) -> Array:
    floor = np.maximum(np.asarray(signal) * _EXACT, _NO_SIGNAL)
    decibels: Array = _DECIBELS * np.log(np.maximum(signal, _NO_SIGNAL) / np.maximum(noise, floor))
    return decibels
