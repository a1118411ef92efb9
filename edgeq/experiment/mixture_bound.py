"""How far a sum of bounded values may stray from its expectation at any time: a time-uniform bound.

Source: Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", theorem 4 (the empirical variance) and section 3.4 (discrete mixtures). For x of at most `span`
away from its prediction, exp(l*s - psi(l)*v), with s the sum of (x - its conditional mean) / span, v the
sum of ((x - prediction) / span)**2 and psi(l) = -log(1 - l) - l, is a supermartingale for each 0 <= l < 1.
So is the mean of several, and by Ville's inequality it ever reaches 1/alpha with a probability of at most
alpha.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Good for v from about 1 to 1e8: the best l is near sqrt(2 log(1/alpha) / v).
_LAMBDAS = 0.9 * 1.5 ** -np.arange(20.0)
_PSIS = -np.log1p(-_LAMBDAS) - _LAMBDAS
# Early looks are made with large l: they get the larger shares.
_SHARES = (1 / np.arange(1.0, 21.0)) / (1 / np.arange(1.0, 21.0)).sum()
_STEPS = 45


def radius(v: Array, alpha: float) -> Array:
    """Return how large s may be, at any time, except with probability alpha.

    Args:
        v: empirical variances, any shape, in units of span**2.
        alpha: of this one side.
    """
    v = np.asarray(v, dtype=np.float64)
    level = math.log(1 / alpha)
    # Each l alone gives a bound; the mixture's lies between the best of them with and without its share.
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
    found: Array = largest + np.log(np.exp(exponents - largest[..., None]) @ _SHARES)
    return found
