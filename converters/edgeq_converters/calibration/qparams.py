"""Quantization parameters: the scale and zero point of a range, and values rounded to its integer grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Range = tuple[float, float]
"""(low, high) in real values."""
_SMALLEST = 1e-9  # the width that litert-quantizer gives an empty range


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers of a quantized type.

    Attributes:
        lowest, highest: the smallest and the largest integer.
        symmetric: whether the zero point is 0, so that a range reaches as far down as up.
        headroom: how many times as wide as the calibrated range a tensor's range is. Where steps are plenty,
            values beyond those of the samples should not be clipped.
    """

    lowest: int
    highest: int
    symmetric: bool
    headroom: float = 1.0

    def parameters(self, low: float, high: float) -> tuple[float, int]:
        """Return (scale, zero point) of a range, which is widened to hold zero.

        Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
        Only Inference", arXiv 1712.05877, section 3; as litert-quantizer computes it.
        """
        if self.symmetric:
            return max(abs(low), abs(high), _SMALLEST) / self.highest, 0
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, _SMALLEST) / (self.highest - self.lowest)
        return scale, int(np.clip(round(self.lowest - low / scale), self.lowest, self.highest))

    def rounded(self, values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
        """Return the values quantized with a range's scale and zero point, and dequantized again."""
        scale, zero_point = self.parameters(low, high)
        steps = np.rint(values / scale)
        np.clip(steps, self.lowest - zero_point, self.highest - zero_point, out=steps)
        steps *= scale
        return steps


INT8 = Grid(lowest=-128, highest=127, symmetric=False)
INT16 = Grid(lowest=-32767, highest=32767, symmetric=True, headroom=4.0)
