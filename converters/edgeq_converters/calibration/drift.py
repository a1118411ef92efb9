"""Drift of samples from those that a model was calibrated on: population stability index and clipping."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.values import TensorShift

_PARTS = 10


def compare(tensor: str, calibrated: Histogram, other: Histogram) -> TensorShift:
    """Return the drift from one histogram to the other; both must hold values."""
    low, high, counts = other.bins()
    # An extreme may cut through a bin: the part beyond counts, as if the bin's values were spread evenly.
    width = np.where(high > low, high - low, 1.0)
    above = np.where(high > low, (high - calibrated.maximum) / width, high > calibrated.maximum)
    below = np.where(high > low, (calibrated.minimum - low) / width, low < calibrated.minimum)
    outside = float(np.dot(np.clip(above, 0, 1) + np.clip(below, 0, 1), counts) / counts.sum())
    return TensorShift(tensor=tensor, psi=_psi(calibrated, other), outside=min(outside, 1.0))


def _psi(calibrated: Histogram, other: Histogram) -> float:
    """Source: Siddiqi, "Credit Risk Scorecards", 2006; half a count more keeps empty parts finite."""
    low, _, counts = calibrated.bins()
    edges = np.unique(low[np.searchsorted(np.cumsum(counts) / counts.sum(), np.arange(1, _PARTS) / _PARTS)])
    expected, actual = _shares(calibrated, edges), _shares(other, edges)
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def _shares(histogram: Histogram, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, _, counts = histogram.values.edges()
    parts = np.bincount(np.searchsorted(edges, low, side="right"), weights=counts, minlength=len(edges) + 1)
    shares: npt.NDArray[np.float64] = (parts + 0.5) / (parts.sum() + 0.5 * len(parts))
    return shares
