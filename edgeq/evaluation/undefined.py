"""Figures that may be undefined: None in place of NaN."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import SupportsFloat


def finite(value: SupportsFloat) -> float | None:
    """Return a figure; None where it is NaN or infinite."""
    number = float(value)
    return number if math.isfinite(number) else None


def minus(one: float | None, other: float | None) -> float | None:
    """Return the difference of two figures; None where one is undefined."""
    return None if one is None or other is None else one - other


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the figures that are defined; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
