"""Calibrators: pure functions from a tensor's histogram to the range that its integers cover."""

from __future__ import annotations

from collections.abc import Callable

from edgeq_converters.histogram import Histogram

Range = tuple[float, float]
Calibrator = Callable[[Histogram], Range]


def minmax(histogram: Histogram) -> Range:
    """Return the exact extremes: nothing that was seen is clipped."""
    return histogram.minimum, histogram.maximum


CALIBRATORS: dict[str, Calibrator] = {"minmax": minmax}
