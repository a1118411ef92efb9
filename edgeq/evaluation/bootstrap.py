"""Percentile bootstrap: intervals of figures that are functions of sums over the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]
Ends = tuple[float, float]
RESAMPLES = 1000
_AT_ONCE = 2**22
"""Counts of samples that are drawn at a time."""


def percentile_ci95(
    per_sample: npt.NDArray[Any], figure: Callable[[Real], Real], *, seed: int, resamples: int = RESAMPLES
) -> Ends | None:
    """Return the 95 % interval of a figure of sums over the samples; see `percentile_ci95_of_counts`.

    Two models' figures in one row are paired: both are computed on the same resample.

    Args:
        per_sample: (samples, terms): what each sample adds to each sum.
        figure: takes the sums (resamples, terms) and returns the figure of each resample; NaN where it is
            undefined.
        seed: of the resamples.
    """
    return percentile_ci95_of_counts(
        len(per_sample), lambda counts: figure(counts @ per_sample), seed=seed, resamples=resamples
    )


def percentile_ci95_of_counts(
    samples: int, figure: Callable[[Real], Real], *, seed: int, resamples: int = RESAMPLES
) -> Ends | None:
    """Return the 95 % interval of a figure by the percentile bootstrap; None where no resample has one.

    Samples are drawn with replacement, as many as there are; the ends are the 2.5 % and 97.5 % quantiles of
    the figure (Efron 1979, doi 10.1214/aos/1176344552).

    Args:
        samples: how many there are.
        figure: takes how often each resample has each sample, (resamples, samples), and returns the figure of
            each resample; NaN where it is undefined.
        seed: of the resamples.
    """
    rng = np.random.default_rng(seed)
    equal = np.full(samples, 1 / samples)
    step = max(1, _AT_ONCE // samples)
    parts = []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(samples, equal, size=min(step, resamples - start))
        parts.append(figure(drawn.astype(np.float64)))
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
