"""Confidence sequences for the mean of bounded values: intervals that may be looked at after every value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.mixture_bound import radius

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What a figure may be; infinite ends say nothing."""

    low: float
    high: float

    @property
    def says_nothing(self) -> bool:
        """Whether an end is open."""
        return not (math.isfinite(self.low) and math.isfinite(self.high))

    def within(self, low: float, high: float) -> Interval:
        """Return the part of it that is possible; `NOTHING` where that is all."""
        if self.low <= low and self.high >= high:
            return NOTHING
        return Interval(low=max(self.low, low), high=min(self.high, high))

    def holds(self, value: float) -> bool:
        """Whether a value may be the figure."""
        return self.low <= value <= self.high


NOTHING = Interval(low=-math.inf, high=math.inf)


def mean_path(low: Array, high: Array, *, span: float, alpha: float) -> tuple[Array, Array]:
    """Return, after each value, an interval for the mean of the values' conditional expectations.

    All intervals hold at the same time with a probability of at least 1 - alpha, whatever the values depend
    on in the past and however the expectations move; the mean is of those so far.

    Args:
        low, high: shape (n,): what each value is at least and at most; the same where it is known.
        span: no value can be further than this from any other.
        alpha: of both sides together.

    Returns:
        Lower and upper ends, shape (n,).
    """
    count = np.arange(1, len(low) + 1)
    below = low.cumsum() - span * radius(_variances(low, span), alpha / 2)
    above = high.cumsum() + span * radius(_variances(high, span), alpha / 2)
    return below / count, above / count


def mean_interval(low: Array, high: Array, *, span: float, alpha: float) -> Interval:
    """Return the last interval of `mean_path`; `NOTHING` without a value."""
    if not len(low):
        return NOTHING
    lowest, highest = mean_ends(low[:, None], high[:, None], span=span, alpha=alpha)
    return Interval(low=float(lowest[0]), high=float(highest[0]))


def mean_ends(low: Array, high: Array, *, span: float, alpha: float) -> tuple[Array, Array]:
    """Return the last interval of several sequences at once, which are the columns of (n, m)."""
    spread_low = span * radius(_variances(low, span)[-1], alpha / 2)
    spread_high = span * radius(_variances(high, span)[-1], alpha / 2)
    return (low.sum(axis=0) - spread_low) / len(low), (high.sum(axis=0) + spread_high) / len(high)


def _variances(values: Array, span: float) -> Array:
    """Return the running sums of squared errors of predicting each value by the mean of those before.

    Each prediction is made of the past alone, as the bound demands; a zero stands in for the first one.
    """
    numbers = np.arange(1, len(values) + 1).reshape((-1,) + (1,) * (values.ndim - 1))
    predictions = (values.cumsum(axis=0) - values) / numbers
    found: Array = (((values - predictions) / span) ** 2).cumsum(axis=0)
    return found
