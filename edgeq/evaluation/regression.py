"""Figures of a regression beside its float model: mean, root mean square and largest error, R squared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends, percentile_ci95

Real = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionScore:
    """Errors of one model, in the unit of the labels.

    Attributes:
        mae: mean absolute error.
        rmse: square root of the mean squared error.
        largest_error: the largest absolute error.
        r2: 1 minus the squared error as a share of that of the labels' mean; the mean over the values of a
            sample. None where the labels do not vary.
    """

    mae: float
    rmse: float
    largest_error: float
    r2: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Errors of both models.

    Attributes:
        mae_increase, rmse_increase: the variant's error minus the float model's.
        mae_increase_ci95, rmse_increase_ci95: paired percentile bootstrap; None for samples that depend on
            each other.
    """

    reference: RegressionScore
    variant: RegressionScore
    mae_increase: float
    mae_increase_ci95: Ends | None
    rmse_increase: float
    rmse_increase_ci95: Ends | None


def regression_of(
    reference: Real, variant: Real, labels: Real, *, independent: bool = True, seed: int = 0
) -> Regression:
    """Return the errors of two models on the same samples. A pure function.

    Args:
        reference, variant: finite outputs (samples, values).
        labels: (samples, values).
        independent: whether the samples are independent of each other; there are no intervals otherwise.
        seed: of the bootstrap.
    """
    scores = [_score(each, labels) for each in (reference, variant)]
    errors = [each - labels for each in (reference, variant)]
    absolute = np.stack([np.abs(each).mean(axis=1) for each in errors], axis=1)
    squared = np.stack([np.square(each).mean(axis=1) for each in errors], axis=1)
    count = len(labels)
    return Regression(
        reference=scores[0],
        variant=scores[1],
        mae_increase=scores[1].mae - scores[0].mae,
        mae_increase_ci95=percentile_ci95(
            absolute, lambda sums: np.asarray((sums[:, 1] - sums[:, 0]) / count), seed=seed
        )
        if independent
        else None,
        rmse_increase=scores[1].rmse - scores[0].rmse,
        rmse_increase_ci95=percentile_ci95(
            squared,
            lambda sums: np.asarray(np.sqrt(sums[:, 1] / count) - np.sqrt(sums[:, 0] / count)),
            seed=seed,
        )
        if independent
        else None,
    )


def _score(output: Real, labels: Real) -> RegressionScore:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    varies = len(labels) > 1 and bool((np.ptp(labels, axis=0) > 0).all())
    return RegressionScore(
        mae=float(mean_absolute_error(labels, output)),
        rmse=float(np.sqrt(mean_squared_error(labels, output))),
        largest_error=float(np.abs(output - labels).max()),
        r2=float(r2_score(labels, output)) if varies else None,
    )
