"""How far samples are from those that a model was calibrated on, as figures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.values import TensorInfo, TensorShift

WORTH_SAYING = 0.01
"""A share of clipped values above this is said: percentile ranges clip a hundredth of it by intent."""
_PARTS = 10


def between(tensor: str, calibrated: Histogram, other: Histogram) -> TensorShift:
    """Return the shift from one histogram to the other; neither is empty."""
    low, high, counts = other.bins()
    # A bin that the extreme cuts through is taken as outside by its part beyond, spread evenly.
    width = np.where(high > low, high - low, 1.0)
    above = np.where(high > low, (high - calibrated.maximum) / width, high > calibrated.maximum)
    below = np.where(high > low, (calibrated.minimum - low) / width, low < calibrated.minimum)
    outside = float(np.dot(np.clip(above, 0, 1) + np.clip(below, 0, 1), counts) / counts.sum())
    return TensorShift(tensor=tensor, psi=_psi(calibrated, other), outside=min(outside, 1.0))


def _psi(calibrated: Histogram, other: Histogram) -> float:
    """Source: Siddiqi, "Credit Risk Scorecards", 2006; half a count more keeps empty parts finite."""
    low, _, counts = calibrated.bins()
    edges = np.unique(low[np.searchsorted(np.cumsum(counts) / counts.sum(), np.arange(1, _PARTS) / _PARTS)])
    was, now = _shares(calibrated, edges), _shares(other, edges)
    return float(np.sum((now - was) * np.log(now / was)))


def _shares(histogram: Histogram, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, _, counts = histogram.values.edges()
    parts = np.bincount(np.searchsorted(edges, low, side="right"), weights=counts, minlength=len(edges) + 1)
    shares: npt.NDArray[np.float64] = (parts + 0.5) / (parts.sum() + 0.5 * len(parts))
    return shares


def clipped(array: npt.NDArray[np.generic], tensor: TensorInfo) -> float:
    """Return which share of real values a quantized input cannot say; 0 where values go in as they are."""
    kind = np.dtype(tensor.dtype)
    if tensor.scale is None or array.dtype == kind:
        return 0.0
    limits = np.iinfo(kind)
    zero = tensor.zero_point or 0
    steps = np.rint(array.astype(np.float64) / tensor.scale) + zero
    return float(np.mean((steps < limits.min) | (steps > limits.max)))


def clipping_note(share: float, tensor: TensorInfo, *, model: str) -> str | None:
    """Return the warning for a share of clipped values, or None where it is not worth saying."""
    if share <= WORTH_SAYING or tensor.scale is None:
        return None
    limits, zero = np.iinfo(np.dtype(tensor.dtype)), tensor.zero_point or 0
    low, high = (limits.min - zero) * tensor.scale, (limits.max - zero) * tensor.scale
    return (
        f"{100 * share:.1f} % of the values of input `{tensor.name}` lie outside of {low:.4g} to {high:.4g}, "
        f"which is what {model} can take: it was calibrated on other data"
    )
