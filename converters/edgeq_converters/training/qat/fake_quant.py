"""Fake quantization: round to the integer grid in the forward pass, straight-through in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def rounded(values: Any) -> Any:
    """Return the nearest integers with the straight-through gradient (Bengio et al., arXiv 1308.3432)."""
    import keras

    return values + keras.ops.stop_gradient(keras.ops.round(values) - values)


def weights(values: Any, *, over: Sequence[int], bits: int, ratio: Any = 1.0) -> Any:
    """Return weights on a symmetric grid with one scale per channel.

    Args:
        over: axes that share a scale; the remaining axes are the channels.
        ratio: end of the grid as a share of the channel's largest magnitude; larger weights are clipped.
    """
    import keras

    ops = keras.ops
    most = float(2 ** (bits - 1) - 1)
    scale = ops.stop_gradient(ops.max(ops.abs(values), axis=tuple(over), keepdims=True)) / most * ratio
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    return rounded(ops.clip(values / scale, -most, most)) * scale


def snapped(
    values: npt.NDArray[np.float32], *, over: Sequence[int], bits: int, ratio: Any = 1.0
) -> npt.NDArray[np.float32]:
    """Return the weights rounded to their grid, so that the quantizer's own rounding changes nothing.

    With a ratio of at most one, each channel has a weight at the end of the grid, from which the quantizer
    derives the same scale.
    """
    most = float(2 ** (bits - 1) - 1)
    scale = np.abs(values).max(axis=tuple(over), keepdims=True) / most * ratio
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.asarray(np.clip(np.round(values / scale), -most, most) * scale, np.float32)


def activations(values: Any, low: Any, high: Any) -> Any:
    """Return activations on the int8 grid of a range; gradients reach both ends of the range, as in LSQ+.

    Args:
        low: at most zero.
        high: at least zero, and above `low`.
    """
    import keras

    ops = keras.ops
    scale = (high - low) / 255.0
    zero = rounded(-128.0 - low / scale)
    steps = rounded(ops.clip(values / scale + zero, -128.0, 127.0))
    return (steps - zero) * scale


class LearnedRange:
    """A tensor's range as two trainable numbers; both keep their sign, so that zero stays inside."""

    _SPEED = 20.0  # learning rate of the ends relative to a weight: a range may move by a factor

    def __init__(self, low: float, high: float) -> None:
        import keras

        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-6:
            high = low + 1e-6
        self._low, self._high = low, high
        self.variables = [keras.Variable(np.zeros((), np.float32)) for _ in range(2)]

    def ends(self) -> tuple[Any, Any]:
        """Return (low, high) as tensors."""
        import keras

        low, high = (keras.ops.exp(self._SPEED * variable) for variable in self.variables)
        return self._low * low, self._high * high

    def __call__(self, values: Any) -> Any:
        return activations(values, *self.ends())


class LearnedRatio:
    """The end of a low-bit grid as a trainable share of each channel's largest weight."""

    _LEAST = 0.2

    def __init__(self, start: npt.NDArray[np.floating[Any]]) -> None:
        import keras

        self.variable = keras.Variable(np.asarray(start, np.float32))

    def value(self) -> Any:
        """Return the ratios, at most one; the gradient passes the bounds, so that no ratio gets stuck."""
        import keras

        ops = keras.ops
        bounded = ops.clip(self.variable.value, self._LEAST, 1.0)
        return self.variable.value + ops.stop_gradient(bounded - self.variable.value)
