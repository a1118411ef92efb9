"""The logarithm of the gamma function for arrays: the lean install has numpy, but no scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Stirling's series is good to 1e-11 above this; smaller arguments are moved up by the recurrence.
_FLOOR = 8
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def log_gamma(x: Array) -> Array:
    """Return log(gamma(x)) elementwise for x > 0, error below 1e-11 of max(1, the value).

    Source: Abramowitz & Stegun 6.1.41 (Stirling's series) and 6.1.15 (recurrence).
    """
    x = np.asarray(x, dtype=np.float64)
    small = x < _FLOOR
    product = np.ones_like(x)
    if small.any():
        low = x[small]
        factors = low.copy()
        for step in range(1, _FLOOR):
            factors = factors * (low + step)
        product[small] = factors
    high = np.where(small, x + _FLOOR, x)
    inverse = 1.0 / high
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680))))
    stirling = (high - 0.5) * np.log(high) - high + _HALF_LOG_TAU + series
    result: Array = stirling - np.log(product)
    return result
