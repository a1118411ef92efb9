"""Round a layer's weights so that its outputs on quantized inputs are nearest to the reference outputs.

Method: ridge regression on the quantized inputs gives the real-valued optimum; how far to trust it is cross-
validated on two halves of the samples. Rounding then goes column by column, and each column's error is
compensated by the columns after it. This is optimal brain quantization in GPTQ's order: Frantar et al. 2022,
arXiv 2208.07339 and 2210.17323. Four bits have too few steps for the widest weights: there each channel is
clipped where its rounded weights act most like the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dtrtri

from edgeq_converters.quantization.correction.moments import Moments

Array = npt.NDArray[Any]
LIMITS = {"INT8": 127, "INT4": 7}
"""The largest integer of each type of weights. They are symmetric, as the kernels expect."""

_BLOCK = 64
_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Parts of its widest weight at which a channel may be clipped; the search goes on around the best one."""
_FINER = (0.05, -0.05)
_DAMPINGS = (10.0, 1.0, 0.1, 0.01, 0.001)


def regress(moments: Moments, weights: Array, *, damping: float) -> Array:
    """Return weights (groups, width, fan_in) that fit the reference outputs, regularized to the given ones.

    Args:
        damping: strength of the regularization, relative to the mean variance of an input.
    """
    return weights + _solve(_damped(moments.hessian, damping), _residual(moments, weights))


def choose_damping(first: Moments, second: Moments, weights: Array) -> float:
    """Return the damping whose weights, fitted on one half, suit the other half best; infinity for no fit."""
    # Single precision is enough to compare a few dampings, and takes half the time.
    halves = [
        (half.hessian.astype(np.float32), _residual(half, weights).astype(np.float32))
        for half in (first, second)
    ]

    def gain(damping: float) -> float:
        total = 0.0
        for (hessian, residual), (other_hessian, other_residual) in (halves, halves[::-1]):
            change = _solve(_damped(hessian, damping), residual)
            total += float(np.sum((2 * other_residual - change @ other_hessian) * change, dtype=np.float64))
        return total

    best, most = np.inf, 0.0
    for damping in _DAMPINGS:
        current = gain(damping)
        if current > most:
            best, most = damping, current
        elif best < np.inf:  # the gain has one maximum, and this is past it
            break
    return best


def _residual(moments: Moments, weights: Array) -> Array:
    """Return the covariance of the inputs with the part of the reference outputs that the weights miss."""
    residual: Array = moments.cross - weights @ moments.hessian
    return residual


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factors:
    """A layer's Hessian, prepared for rounding.

    Attributes:
        damped: (groups, fan_in, fan_in), in the order of the weights.
        order: (groups, fan_in), the order in which columns are rounded.
        upper: (groups, fan_in, fan_in), in that order, as `_inverse_root` has it.
    """

    damped: Array
    order: Array
    upper: Array


def factorize(moments: Moments, *, damping: float) -> Factors:
    """Return the factors with which any weights of the layer are rounded."""
    damped = _damped(moments.hessian, damping)
    order = np.argsort(-np.diagonal(damped, axis1=1, axis2=2), axis=1, kind="stable")
    ordered = np.take_along_axis(damped, order[:, :, None], 1)
    ordered = np.take_along_axis(ordered, order[:, None, :], 2)
    return Factors(damped=damped, order=order, upper=_inverse_root(ordered))


def round_to_grid(factors: Factors, weights: Array, steps: Array, *, limit: int) -> Array:
    """Return integers (groups, width, fan_in) such that `integers * steps` acts most like `weights`.

    Args:
        steps: (groups, width), the scale of each output channel.
        limit: the largest integer.
    """
    order, upper = factors.order, factors.upper
    left = np.take_along_axis(weights, order[:, None, :], 2).astype(np.float64)
    fan_in = left.shape[2]
    integers = np.empty_like(left)
    for start in range(0, fan_in, _BLOCK):
        stop = min(start + _BLOCK, fan_in)
        errors = np.empty_like(left[:, :, start:stop])
        for i in range(start, stop):
            integers[:, :, i] = np.clip(np.rint(left[:, :, i] / steps), -limit, limit)
            error = (left[:, :, i] - integers[:, :, i] * steps) / upper[:, i, i][:, None]
            left[:, :, i + 1 : stop] -= error[:, :, None] * upper[:, None, i, i + 1 : stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(integers, back[:, None, :], 2)


def round_and_clip(factors: Factors, weights: Array, *, limit: int) -> tuple[Array, Array]:
    """Return (integers, steps): each channel is clipped where its rounded weights act most like `weights`.

    The error is that of the outputs, so that a wide weight of a silent input costs no steps.
    """
    widest = np.maximum(np.abs(weights).max(2), 1e-9)
    ratios, integers = np.ones_like(widest), np.zeros_like(weights)
    least = np.full(widest.shape, np.inf)

    def attempt(parts: Array) -> None:
        steps = widest * parts / limit
        rounded = round_to_grid(factors, weights, steps, limit=limit)
        missed = rounded * steps[:, :, None] - weights
        error = np.sum((missed @ factors.damped) * missed, axis=2)
        better = error < least
        least[better], ratios[better] = error[better], parts[better]
        integers[better] = rounded[better]

    for ratio in _RATIOS:
        attempt(np.full_like(widest, ratio))
    coarse = ratios.copy()
    for change in _FINER:
        attempt(coarse + change)
    return integers, widest * ratios / limit


def gains(moments: Moments, integers: Array, steps: Array) -> Array:
    """Return the steps (groups, width) that fit the reference outputs best in the least-squares sense.

    A step changes by at most a factor of two, and stays if its inputs carry no signal.
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


def _solve(damped: Array, goal: Array) -> Array:
    """Return X (groups, width, fan_in) with X @ damped = goal; damped is symmetric and positive definite."""
    if len(damped) == 1:  # Cholesky: half the work of numpy's general solver
        factor = cho_factor(damped[0], lower=True, check_finite=False)
        solution: Array = cho_solve(factor, goal[0].T, check_finite=False).T[None]
        return solution
    solved: Array = np.linalg.solve(damped, goal.transpose(0, 2, 1)).transpose(0, 2, 1)
    return solved


def _inverse_root(damped: Array) -> Array:
    """Return the upper triangle U with U^T U = H^-1.

    Its rows from i on belong to the inverse once the first i inputs are fixed. It is the inverse of the
    Cholesky factor of H with the inputs in reverse order, reversed again.
    """
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    inverse: Array = np.tril(dtrtri(lower[0], lower=1)[0])[None] if len(lower) == 1 else np.linalg.inv(lower)
    turned: Array = np.ascontiguousarray(inverse[:, ::-1, ::-1])
    return turned
