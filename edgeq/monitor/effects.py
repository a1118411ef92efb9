"""How large a shift is: population stability index and Jensen-Shannon distance, never used as thresholds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def psi(reference: Array, current: Array) -> float:
    """Return the population stability index of two count vectors, in nats; half a count keeps it finite."""
    p, q = _shares(reference, 0.5), _shares(current, 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def js_distance(reference: Array, current: Array) -> float:
    """Return the Jensen-Shannon distance of two count vectors, 0 (equal) to 1 (disjoint)."""
    p, q = _shares(reference, 0.0), _shares(current, 0.0)
    middle = 0.5 * (p + q)
    return math.sqrt(max(0.0, 0.5 * (_divergence(p, middle) + _divergence(q, middle))))


def _shares(counts: Array, add: float) -> Array:
    values = np.asarray(counts, dtype=np.float64) + add
    shares: Array = values / max(float(values.sum()), 1e-300)
    return shares


def _divergence(p: Array, q: Array) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())
