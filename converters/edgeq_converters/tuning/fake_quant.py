"""Fake quantization: rounded to the integers' grid in the forward pass, straight through in the backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def rounded(values: Any) -> Any:
    """Return the nearest integers, with the gradient of the identity (Bengio et al., arXiv 1308.3432)."""
    import keras

    return values + keras.ops.stop_gradient(keras.ops.round(values) - values)


def weights(values: Any, *, over: Sequence[int], bits: int) -> Any:
    """Return weights on a symmetric grid; one scale for each channel that `over` leaves apart."""
    import keras

    ops = keras.ops
    most = float(2 ** (bits - 1) - 1)
    scale = ops.stop_gradient(ops.max(ops.abs(values), axis=tuple(over), keepdims=True)) / most
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    return rounded(values / scale) * scale


def snapped(values: npt.NDArray[np.float32], *, over: Sequence[int], bits: int) -> npt.NDArray[np.float32]:
    """Return the weights on their grid, so that the quantizer's own rounding changes nothing."""
    most = float(2 ** (bits - 1) - 1)
    scale = np.abs(values).max(axis=tuple(over), keepdims=True) / most
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.asarray(np.round(values / scale) * scale, np.float32)


def activations(values: Any, low: Any, high: Any) -> Any:
    """Return activations on the int8 grid of a range; gradients reach the range's ends as in LSQ+.

    Args:
        low: at most zero.
        high: at least zero; together with `low` a range of some width.
    """
    import keras

    ops = keras.ops
    scale = (high - low) / 255.0
    zero = rounded(-128.0 - low / scale)
    steps = rounded(ops.clip(values / scale + zero, -128.0, 127.0))
    return (steps - zero) * scale


class LearnedRange:
    """A tensor's range as two numbers that training moves; each keeps its sign and zero stays inside."""

    _SPEED = 4.0  # of the ends, relative to a weight's step

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
