"""Weights on the integer grid whose outputs, on the inputs that the layer really gets, are the nearest.

Method: ridge regression on the quantized inputs gives the real-valued optimum, as far as one half of the
samples tells the other; the rounding then goes column by column, each column's error made up for by the
columns after it: optimal brain quantization in GPTQ's way, Frantar et al. 2022, arXiv 2208.07339, 2210.17323.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dtrtri

from edgeq_converters.quantization.correction.moments import Moments

Array = npt.NDArray[Any]
LIMIT = 127
"""Weights are symmetric: -127 to 127, as the kernels expect."""

_BLOCK = 64
_DAMPINGS = (10.0, 1.0, 0.1, 0.01, 0.001)


def regress(moments: Moments, weights: Array, *, damping: float) -> Array:
    """Return the weights (groups, width, fan_in) that fit the wanted outputs, held near to the given ones.

    Args:
        damping: how much the given weights hold, as a part of the mean variance of an input.
    """
    return weights + _solved(_damped(moments.hessian, damping), _missing(moments, weights))


def choose_damping(first: Moments, second: Moments, weights: Array) -> float:
    """Return the damping whose weights, fitted on one half, serve the other half best; infinity for none."""
    # Which of a few dampings is the best shows in single precision too, at half of the time.
    halves = [
        (half.hessian.astype(np.float32), _missing(half, weights).astype(np.float32))
        for half in (first, second)
    ]

    def gain(damping: float) -> float:
        found = 0.0
        for (hessian, missing), (other, wanted) in (halves, halves[::-1]):
            change = _solved(_damped(hessian, damping), missing)
            found += float(np.sum((2 * wanted - change @ other) * change, dtype=np.float64))
        return found

    best, most = np.inf, 0.0
    for damping in _DAMPINGS:
        found = gain(damping)
        if found > most:
            best, most = damping, found
        elif best < np.inf:  # the gain has one hill: past it, it only falls
            break
    return best


def _missing(moments: Moments, weights: Array) -> Array:
    """Return what the wanted outputs have in common with the inputs and the weights do not give."""
    missing: Array = moments.cross - weights @ moments.hessian
    return missing


def round_to_grid(moments: Moments, weights: Array, steps: Array, *, damping: float) -> Array:
    """Return integers (groups, width, fan_in) such that `integers * steps` acts most like `weights`.

    Args:
        steps: (groups, width), the size of one step of each output channel.
    """
    damped = _damped(moments.hessian, damping)
    order = np.argsort(-np.diagonal(damped, axis1=1, axis2=2), axis=1, kind="stable")
    damped = np.take_along_axis(damped, order[:, :, None], 1)
    damped = np.take_along_axis(damped, order[:, None, :], 2)
    left = np.take_along_axis(weights, order[:, None, :], 2).astype(np.float64)
    upper = _inverse_root(damped)
    fan_in = left.shape[2]
    integers = np.empty_like(left)
    for start in range(0, fan_in, _BLOCK):
        stop = min(start + _BLOCK, fan_in)
        errors = np.empty_like(left[:, :, start:stop])
        for i in range(start, stop):
            integers[:, :, i] = np.clip(np.rint(left[:, :, i] / steps), -LIMIT, LIMIT)
            error = (left[:, :, i] - integers[:, :, i] * steps) / upper[:, i, i][:, None]
            left[:, :, i + 1 : stop] -= error[:, :, None] * upper[:, None, i, i + 1 : stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(integers, back[:, None, :], 2)


def gains(moments: Moments, integers: Array, steps: Array) -> Array:
    """Return steps (groups, width) that fit the wanted outputs best with these integers (least squares).

    A step changes by a factor of two at the most; where the inputs say nothing it stays.
    """
    power = np.einsum("gok,gkl,gol->go", integers, moments.hessian, integers, optimize=True)
    match = np.einsum("gok,gok->go", moments.cross, integers)
    sound = power * steps * steps > 1e-12 * np.maximum(np.abs(match * steps), 1e-30)
    best = np.where(sound, match / np.where(sound, power, 1.0), steps)
    return np.clip(best, steps / 2, steps * 2)


def _damped(hessian: Array, damping: float) -> Array:
    fan_in = hessian.shape[1]
    mean = np.trace(hessian, axis1=1, axis2=2) / fan_in
    floor = np.where(mean > 0, mean * damping, 1.0)
    damped: Array = hessian + floor[:, None, None] * np.eye(fan_in, dtype=hessian.dtype)
    return damped


def _solved(damped: Array, goal: Array) -> Array:
    """Return X (groups, width, fan_in) with X @ damped = goal; damped is symmetric and positive definite."""
    if len(damped) == 1:  # half of the work of a general solution, which numpy has nothing for
        factor = cho_factor(damped[0], lower=True, check_finite=False)
        found: Array = cho_solve(factor, goal[0].T, check_finite=False).T[None]
        return found
    solved: Array = np.linalg.solve(damped, goal.transpose(0, 2, 1)).transpose(0, 2, 1)
    return solved


def _inverse_root(damped: Array) -> Array:
    """Return the upper triangle U with U^T U = H^-1.

    Its rows from i on are those of the inverse once the first i inputs are fixed. With the order of the
    inputs turned around, H = L L^T gives it as the inverse of L, turned back.
    """
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    inverse: Array = np.tril(dtrtri(lower[0], lower=1)[0])[None] if len(lower) == 1 else np.linalg.inv(lower)
    turned: Array = np.ascontiguousarray(inverse[:, ::-1, ::-1])
    return turned
