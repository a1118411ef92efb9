"""Histograms of a tensor's values: mergeable, and blind to the order and the batches that they came in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BINS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Counts of float32 values on one fixed grid, with the exact extremes.

    The grid is the float32 format's own: a bin is all values with the same sign, exponent and first seven
    bits of the mantissa, so that a bin is at most 1/128 of its value wide wherever the values lie. As no edge
    depends on the data, merging is addition, and any order and any batching give the same histogram.

    Attributes:
        counts: int64, one a bin, indexed by the upper 16 bits of the value.
        minimum: exact smallest value; +inf when empty.
        maximum: exact largest value; -inf when empty.
        invalid: how many values were NaN or infinite; they are in no bin.
    """

    counts: npt.NDArray[np.int64]
    minimum: float
    maximum: float
    invalid: int

    @property
    def total(self) -> int:
        """How many finite values were counted."""
        return int(self.counts.sum())

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of both sets of values."""
        return Histogram(
            counts=self.counts + other.counts,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            invalid=self.invalid + other.invalid,
        )

    def occupied(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the bins that hold values, by rising value: (each bin's value nearest to zero, counts)."""
        keys = np.flatnonzero(self.counts)
        values = (keys.astype(np.uint32) << np.uint32(16)).view(np.float32)
        order = np.argsort(values, kind="stable")
        return values[order], self.counts[keys[order]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (
            self.minimum == other.minimum
            and self.maximum == other.maximum
            and self.invalid == other.invalid
            and bool(np.array_equal(self.counts, other.counts))
        )

    __hash__ = None  # type: ignore[assignment]


class Observer:
    """Counts values as they come by and gives their histogram."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._minimum = np.inf
        self._maximum = -np.inf
        self._invalid = 0

    def add(self, values: npt.ArrayLike) -> None:
        """Count values of any shape, taken as float32."""
        # Adding zero makes -0.0 into 0.0, which compare equal and so belong into one bin.
        flat = np.asarray(values, np.float32).ravel() + np.float32(0)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = np.isfinite(flat)
            self._invalid += int(flat.size - finite.sum())
            flat = flat[finite]
            if not flat.size:
                return
            low, high = float(flat.min()), float(flat.max())
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)
        keys = flat.view(np.uint32) >> np.uint32(16)
        if flat.size < _BINS // 8:
            np.add.at(self._counts, keys, 1)  # does not touch all bins for a handful of values
        else:
            self._counts += np.bincount(keys, minlength=_BINS)

    def histogram(self) -> Histogram:
        """Return what was counted so far."""
        return Histogram(
            counts=self._counts.copy(), minimum=self._minimum, maximum=self._maximum, invalid=self._invalid
        )


def histogram_of(values: npt.ArrayLike) -> Histogram:
    """Return the histogram of one array."""
    observer = Observer()
    observer.add(values)
    return observer.histogram()
