"""Confidence sequences: anytime-valid intervals for the mean of bounded values, from a time-uniform bound.

Source: Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", theorem 4 (the empirical variance) and section 3.4 (discrete mixtures). Let no x be further than
`span` from its prediction, s the sum of (x - its conditional mean) / span, v the sum of
((x - prediction) / span)**2, and psi(l) = -log(1 - l) - l. Then exp(l*s - psi(l)*v) is a supermartingale for
each 0 <= l < 1. So is a mixture of several, and by Ville's inequality it ever reaches 1/alpha with
probability at most alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# For v from about 1 to 1e8: the best l is near sqrt(2 log(1/alpha) / v).
_LAMBDAS = 0.9 * 1.5 ** -np.arange(20.0)
_PSIS = -np.log1p(-_LAMBDAS) - _LAMBDAS
# Early looks need a large l: large ones get the larger shares of the mixture.
_SHARES = (1 / np.arange(1.0, 21.0)) / (1 / np.arange(1.0, 21.0)).sum()
_STEPS = 45


def radius(v: Array, alpha: float) -> Array:
    """Return the time-uniform bound on s: with probability 1 - alpha, s never exceeds it.

    Args:
        v: empirical variances in units of span**2, any shape.
        alpha: error probability of this side.
    """
    v = np.asarray(v, dtype=np.float64)
    level = math.log(1 / alpha)
    # Each l with its share gives an upper bound of the mixture's; bisection finds the mixture's own.
    each = (level - np.log(_SHARES) + _PSIS * v[..., None]) / _LAMBDAS
    high: Array = each.min(axis=-1)
    low = np.zeros_like(high)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        above = _log_mixture(middle, v) >= level
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
    return high


def _log_mixture(s: Array, v: Array) -> Array:
    exponents = _LAMBDAS * s[..., None] - _PSIS * v[..., None]
    largest = exponents.max(axis=-1)
    mixture: Array = largest + np.log(np.exp(exponents - largest[..., None]) @ _SHARES)
    return mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The values that a metric may have; an infinite end bounds nothing."""

    low: float
    high: float

    @property
    def is_open(self) -> bool:
        """Whether an end is infinite."""
        return not (math.isfinite(self.low) and math.isfinite(self.high))

    def within(self, low: float, high: float) -> Interval:
        """Return the intersection with the possible values; `NOTHING` when all of them remain."""
        if self.low <= low and self.high >= high:
            return NOTHING
        return Interval(low=max(self.low, low), high=min(self.high, high))

    def holds(self, value: float) -> bool:
        """Return whether the interval contains a value."""
        return self.low <= value <= self.high


NOTHING = Interval(low=-math.inf, high=math.inf)


def mean_path(low: Array, high: Array, *, span: float, alpha: float) -> tuple[Array, Array]:
    """Return a confidence sequence for the running mean of the values' conditional expectations.

    With probability at least 1 - alpha all intervals contain their mean, whatever the values' dependence on
    the past and however the expectations change.

    Args:
        low, high: lower and upper bound of each value, shape (n,); equal where the value is known.
        span: largest possible distance between two values.
        alpha: error probability of both sides together.

    Returns:
        Lower and upper ends after each value, shape (n,).
    """
    count = np.arange(1, len(low) + 1)
    below = low.cumsum() - span * radius(_variances(low, span), alpha / 2)
    above = high.cumsum() + span * radius(_variances(high, span), alpha / 2)
    return below / count, above / count


def mean_interval(low: Array, high: Array, *, span: float, alpha: float) -> Interval:
    """Return the last interval of `mean_path`; `NOTHING` without values."""
    if not len(low):
        return NOTHING
    lowest, highest = mean_ends(low[:, None], high[:, None], span=span, alpha=alpha)
    return Interval(low=float(lowest[0]), high=float(highest[0]))


def mean_ends(low: Array, high: Array, *, span: float, alpha: float) -> tuple[Array, Array]:
    """Return the last interval of several sequences at once.

    Args:
        low, high: shape (n, m), one sequence in each column.

    Returns:
        Lower and upper ends, shape (m,).
    """
    spread_low = span * radius(_variances(low, span)[-1], alpha / 2)
    spread_high = span * radius(_variances(high, span)[-1], alpha / 2)
    return (low.sum(axis=0) - spread_low) / len(low), (high.sum(axis=0) + spread_high) / len(high)


def _variances(values: Array, span: float) -> Array:
    """Return the running sums of squared errors of predicting each value from the earlier ones.

    The bound requires a prediction from the past alone: here the mean of the earlier values and one zero.
    """
    numbers = np.arange(1, len(values) + 1).reshape((-1,) + (1,) * (values.ndim - 1))
    predictions = (values.cumsum(axis=0) - values) / numbers
    variances: Array = (((values - predictions) / span) ** 2).cumsum(axis=0)
    return variances
