"""Histograms of a tensor's values: mergeable, and independent of the order and batching of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BINS = 1 << 16
_SMALL = 1024
"""Values of a tensor from which its samples are counted one by one."""
_MOST_WAITING = 32
"""Samples of a smaller tensor that are counted at once."""
_PENDING = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """How many values fell into each bin; only occupied bins are stored.

    The bins are those of the float32 format: a bin holds all values with the same sign, exponent and first
    seven bits of the mantissa, so that its width is at most 1/128 of its value. Because the edges do not
    depend on the data, merging is addition, and any order or batching gives the same counts.

    Attributes:
        keys: uint16, ascending: the upper 16 bits of the values.
        counts: int64, one per key, positive.
    """

    keys: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.int64]

    @property
    def total(self) -> int:
        """The number of values."""
        return int(self.counts.sum())

    def merge(self, other: Counts) -> Counts:
        """Return the counts of both."""
        keys = np.union1d(self.keys, other.keys)
        counts = np.zeros(len(keys), np.int64)
        counts[np.searchsorted(keys, self.keys)] += self.counts
        counts[np.searchsorted(keys, other.keys)] += other.counts
        return Counts(keys=keys, counts=counts)

    def occupied(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return (each bin's value nearest to zero, counts), by ascending value."""
        values = (self.keys.astype(np.uint32) << np.uint32(16)).view(np.float32)
        order = np.argsort(values, kind="stable")
        return values[order], self.counts[order]

    def edges(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return (lower edges, upper edges, counts), by ascending value."""
        keys = self.keys.astype(np.uint32)
        near = (keys << np.uint32(16)).view(np.float32).astype(np.float64)
        far = ((keys << np.uint32(16)) | np.uint32(0xFFFF)).view(np.float32).astype(np.float64)
        far[keys == 0] = 0.0  # zeros, and values too small for any quantized tensor to represent
        order = np.argsort(near, kind="stable")
        return np.minimum(near, far)[order], np.maximum(near, far)[order], self.counts[order]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counts):
            return NotImplemented
        return bool(np.array_equal(self.keys, other.keys) and np.array_equal(self.counts, other.counts))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The distribution of a tensor's values: their counts, exact extremes, and each sample's extremes.

    Attributes:
        values: counts of all finite values.
        lows: counts of each sample's smallest value.
        highs: counts of each sample's largest value.
        minimum: exact smallest value; +inf when empty.
        maximum: exact largest value; -inf when empty.
        invalid: number of NaN and infinite values, which no bin counts.
    """

    values: Counts
    lows: Counts
    highs: Counts
    minimum: float
    maximum: float
    invalid: int

    @property
    def total(self) -> int:
        """The number of finite values."""
        return self.values.total

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.lows.total

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of both sets of values."""
        return Histogram(
            values=self.values.merge(other.values),
            lows=self.lows.merge(other.lows),
            highs=self.highs.merge(other.highs),
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            invalid=self.invalid + other.invalid,
        )

    def occupied(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return (each bin's value nearest to zero, counts) of the values, by ascending value."""
        return self.values.occupied()

    def bins(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return (lower edges, upper edges, counts) of the values, clipped to the exact extremes."""
        low, high, counts = self.values.edges()
        return np.maximum(low, self.minimum), np.minimum(high, self.maximum), counts


class Counter:
    """Counts keys incrementally; stores them sparsely, because a model has hundreds of tensors."""

    def __init__(self) -> None:
        self._pending: list[npt.NDArray[np.uint16]] = []
        self._waiting = 0
        self._counts = Counts(keys=np.zeros(0, np.uint16), counts=np.zeros(0, np.int64))

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count a one-dimensional array of finite float32 values."""
        self._pending.append((values.view(np.uint32) >> np.uint32(16)).astype(np.uint16))
        self._waiting += values.size
        # Collect small batches: a pass over all bins costs more than a handful of values is worth.
        if self._waiting >= _PENDING:
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        keys = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending)
        if keys.size < _PENDING // 8:
            occupied, counts = np.unique(keys, return_counts=True)
            self._counts = self._counts.merge(Counts(keys=occupied, counts=counts.astype(np.int64)))
        else:
            dense = np.bincount(keys, minlength=_BINS).astype(np.int64, copy=False)
            dense[self._counts.keys] += self._counts.counts
            occupied = np.flatnonzero(dense).astype(np.uint16)
            self._counts = Counts(keys=occupied, counts=dense[occupied])
        self._pending, self._waiting = [], 0

    def counts(self) -> Counts:
        """Return the counts so far."""
        self._settle()
        return self._counts


class Observer:
    """Builds a tensor's histogram incrementally."""

    def __init__(self) -> None:
        self._values, self._lows, self._highs = Counter(), Counter(), Counter()
        self._minimum = np.inf
        self._maximum = -np.inf
        self._invalid = 0
        self._few: list[npt.NDArray[np.float32]] = []

    def add(self, values: npt.ArrayLike) -> None:
        """Count values as float32, samples first, and each sample's extremes."""
        # Adding zero turns -0.0 into 0.0: they compare equal and belong into one bin.
        array = np.asarray(values, np.float32) + np.float32(0)
        if not array.size:
            return
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        # A model of many steps has a thousand small tensors: counting several samples at once is faster.
        if self._few and self._few[0].shape[1] != rows.shape[1]:
            self._settle()
        self._few.append(rows)
        if len(self._few) >= _MOST_WAITING or rows.size >= _SMALL:
            self._settle()

    def _settle(self) -> None:
        if not self._few:
            return
        rows = self._few[0] if len(self._few) == 1 else np.concatenate(self._few)
        self._few = []
        lows, highs = rows.min(axis=1), rows.max(axis=1)
        flat = rows.ravel()
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            finite = np.isfinite(rows)
            self._invalid += int(flat.size - finite.sum())
            flat = rows[finite]
            if not flat.size:
                return
            some = finite.any(axis=1)
            lows = np.where(finite, rows, np.inf).min(axis=1)[some].astype(np.float32)
            highs = np.where(finite, rows, -np.inf).max(axis=1)[some].astype(np.float32)
        self._minimum = min(self._minimum, float(lows.min()))
        self._maximum = max(self._maximum, float(highs.max()))
        self._values.add(flat)
        self._lows.add(lows)
        self._highs.add(highs)

    def histogram(self) -> Histogram:
        """Return the histogram so far."""
        self._settle()
        return Histogram(
            values=self._values.counts(),
            lows=self._lows.counts(),
            highs=self._highs.counts(),
            minimum=self._minimum,
            maximum=self._maximum,
            invalid=self._invalid,
        )


def histogram_of(values: npt.ArrayLike) -> Histogram:
    """Return the histogram of one array, samples first."""
    observer = Observer()
    observer.add(values)
    return observer.histogram()
