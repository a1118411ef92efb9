"""Latency ratio B / A around a quantile of A: an anytime-valid confidence interval from blocks.

The threshold x of a block is fixed before the block: it is A's quantile in the earlier blocks of that device.
For a ratio r, the block's value is the share of B's calls up to r*x minus the share of A's calls up to x. At
the true ratio its expectation is 0, whatever the device, its temperature, and the number of calls in each
arm. The interval excludes every ratio at which the confidence sequence of the values excludes 0. Buckets of
the sketch have sharp edges, so shares are exact on the grid of powers of gamma; the ends are rounded outwards
to that grid.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.arm_counts import ArmCounts, Block, quantile_bucket, share_up_to
from edgeq.experiment.confidence_sequence import NOTHING, Interval, radius

Array = NDArray[np.float64]

# The grid: ratios from about 1/11 to 11 at a relative accuracy of 1 percent.
_REACH = 120
CELLS = 4_000_000  # values in memory at once, however many blocks there are
# The threshold comes from about so many calls of A, in at most so many blocks.
_CALLS, _BLOCKS = 200, 10


def ratio_interval(
    blocks: Sequence[Block], quantile: float, *, alpha: float
) -> tuple[Interval, float | None, int]:
    """Return the interval for the latency ratio B / A, its estimate, and the number of blocks behind it.

    Args:
        quantile: quantile of A around which the arms are compared: 0.5 or 0.95.
        alpha: error probability of both sides together.
    """
    compared = _with_thresholds(blocks, quantile)
    accuracies = {counts.accuracy for block in blocks for counts in (block.a, block.b)}
    if not compared or len(accuracies) != 1:
        return NOTHING, None, 0
    accuracy = accuracies.pop()
    gamma = (1 + accuracy) / (1 - accuracy)
    values = _values(compared)
    low, high = _ends(values, alpha)
    crossing = int(np.searchsorted(values.mean(axis=0, dtype=np.float64), 0.0))
    estimate = gamma ** (crossing - _REACH - 0.5) if 0 < crossing <= 2 * _REACH else None
    return _grid_interval(low, high, gamma), estimate, len(compared)


def _grid_interval(low: Array, high: Array, gamma: float) -> Interval:
    """Return the ratios between the last grid step excluded from below and the first excluded from above."""
    steps = np.arange(-_REACH - 1, _REACH + 2)  # one more step at each end stands for "no bound"
    too_small = np.concatenate([[True], high < 0, [False]])
    too_large = np.concatenate([[False], low > 0, [True]])
    last_small = int(steps[np.argmin(too_small) - 1])
    first_large = int(steps[len(steps) - np.argmin(too_large[::-1])])
    return Interval(
        low=-math.inf if last_small < -_REACH else gamma**last_small,
        high=math.inf if first_large > _REACH else gamma**first_large,
    )


def _with_thresholds(blocks: Sequence[Block], quantile: float) -> list[tuple[Block, int]]:
    """Return each block with its threshold (a bucket); a device's first block has none and is left out."""
    history: dict[str, _History] = {}
    compared = []
    for block in blocks:
        earlier = history.setdefault(block.device, _History())
        if earlier.parts:
            compared.append((block, quantile_bucket(earlier.latency, quantile)))
        earlier.add(block.a)
    return compared


class _History:
    """A's calls in the latest blocks of a device."""

    def __init__(self) -> None:
        self.parts: deque[ArmCounts] = deque()
        self.latency: Counter[int] = Counter()
        self._calls = 0

    def add(self, part: ArmCounts) -> None:
        self.parts.append(part)
        self.latency.update(part.latency)
        self._calls += part.timed
        while len(self.parts) > _BLOCKS or (
            len(self.parts) > 1 and self._calls - self.parts[0].timed >= _CALLS
        ):
            oldest = self.parts.popleft()
            self.latency.subtract(oldest.latency)
            self._calls -= oldest.timed


def _values(compared: Sequence[tuple[Block, int]]) -> NDArray[np.float32]:
    """Return each block's value at each grid step, shape (blocks, 2 * _REACH + 1)."""
    values = np.empty((len(compared), 2 * _REACH + 1), dtype=np.float32)  # half the memory of float64
    for row, (block, threshold) in enumerate(compared):
        values[row] = _shares(block.b, threshold) - share_up_to(block.a.latency, threshold)
    return values


def _shares(part: ArmCounts, threshold: int) -> Array:
    """Return the share of calls up to each grid step above the threshold, shape (2 * _REACH + 1,)."""
    buckets = np.fromiter(part.latency.keys(), dtype=np.int64) - threshold
    counts = np.fromiter(part.latency.values(), dtype=np.float64)
    by_step = np.bincount(
        np.clip(buckets + _REACH, 0, 2 * _REACH + 1), weights=counts, minlength=2 * _REACH + 2
    )
    shares: Array = by_step.cumsum()[:-1] / counts.sum()
    return shares


def _ends(values: NDArray[np.float32], alpha: float) -> tuple[Array, Array]:
    """Return lower and upper bounds of the sums of the columns' expectations, shape (2 * _REACH + 1,) each.

    Each value is predicted to be 0, its expectation at the true ratio; no value is further than 1 from that.
    """
    low, high = [], []
    columns = max(1, CELLS // len(values))
    for at in range(0, values.shape[1], columns):
        piece = values[:, at : at + columns].astype(np.float64)
        sums, spread = piece.sum(axis=0), radius((piece**2).sum(axis=0), alpha / 2)
        low.append(sums - spread)
        high.append(sums + spread)
    return np.concatenate(low), np.concatenate(high)
