"""How much slower B is than A, around a quantile of A's latency: an interval that may be looked at any time.

For each block a threshold x is fixed beforehand: the quantile of A in the blocks of that device before it.
For a ratio r the block's value is the share of B's calls within r*x less the share of A's within x. At the
ratio that is right its expectation is 0, whatever the device, its heat, or how many calls each arm has;
ratios at which the sequence of values excludes 0 are excluded (`edgeq.experiment.mixture_bound`). Buckets of
the sketch have sharp edges, so on the grid of powers of gamma the shares are exact; the ends are rounded
outwards to that grid.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.arm_counts import Part, bucket_at, within
from edgeq.experiment.blocks import Block
from edgeq.experiment.confidence_sequence import NOTHING, Interval
from edgeq.experiment.mixture_bound import radius

Array = NDArray[np.float64]

# Ratios from about 1/11 to 11 at a relative accuracy of 1 percent.
_REACH = 120
_CELLS = 4_000_000  # at once, so that many blocks need no more memory
# The threshold comes of so many calls of A, and of no more blocks than that.
_CALLS, _BLOCKS = 200, 10


def ratio_interval(
    blocks: Sequence[Block], quantile: float, *, alpha: float
) -> tuple[Interval, float | None, int]:
    """Return an interval for the ratio of B's latency to A's, its estimate, and how many blocks are in it.

    Args:
        quantile: of A, where the two are compared: 0.5, 0.95.
    """
    judged = _with_thresholds(blocks, quantile)
    accuracies = {part.accuracy for block in blocks for part in (block.a, block.b)}
    if not judged or len(accuracies) != 1:
        return NOTHING, None, 0
    accuracy = accuracies.pop()
    gamma = (1 + accuracy) / (1 - accuracy)
    values = _values(judged)
    low, high = _ends(values, alpha)
    crossing = int(np.searchsorted(values.mean(axis=0, dtype=np.float64), 0.0))
    estimate = gamma ** (crossing - _REACH - 0.5) if 0 < crossing <= 2 * _REACH else None
    return _on_the_grid(low, high, gamma), estimate, len(judged)


def _on_the_grid(low: Array, high: Array, gamma: float) -> Interval:
    """Return the ratios between the last step from below, and the first from above, that are excluded."""
    steps = np.arange(-_REACH - 1, _REACH + 2)  # one more at each end stands for no bound
    too_small = np.concatenate([[True], high < 0, [False]])
    too_large = np.concatenate([[False], low > 0, [True]])
    last_small = int(steps[np.argmin(too_small) - 1])
    first_large = int(steps[len(steps) - np.argmin(too_large[::-1])])
    return Interval(
        low=-math.inf if last_small < -_REACH else gamma**last_small,
        high=math.inf if first_large > _REACH else gamma**first_large,
    )


def _with_thresholds(blocks: Sequence[Block], quantile: float) -> list[tuple[Block, int]]:
    past: dict[str, _Past] = {}
    found = []
    for block in blocks:
        before = past.setdefault(block.device, _Past())
        if before.parts:
            found.append((block, bucket_at(before.latency, quantile)))
        before.add(block.a)
    return found


class _Past:
    """A's calls in the last blocks of a device."""

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.latency: Counter[int] = Counter()
        self._calls = 0

    def add(self, part: Part) -> None:
        self.parts.append(part)
        self.latency.update(part.latency)
        self._calls += part.timed
        while len(self.parts) > _BLOCKS or (
            len(self.parts) > 1 and self._calls - self.parts[0].timed >= _CALLS
        ):
            oldest = self.parts.popleft()
            self.latency.subtract(oldest.latency)
            self._calls -= oldest.timed


def _values(judged: Sequence[tuple[Block, int]]) -> NDArray[np.float32]:
    """Return each block's value at each step of the grid, shape (blocks, 2 * reach + 1)."""
    found = np.empty((len(judged), 2 * _REACH + 1), dtype=np.float32)  # many blocks: half the memory
    for row, (block, threshold) in enumerate(judged):
        found[row] = _shares(block.b, threshold) - within(block.a.latency, threshold)
    return found


def _shares(part: Part, threshold: int) -> Array:
    buckets = np.fromiter(part.latency.keys(), dtype=np.int64) - threshold
    counts = np.fromiter(part.latency.values(), dtype=np.float64)
    by_step = np.bincount(
        np.clip(buckets + _REACH, 0, 2 * _REACH + 1), weights=counts, minlength=2 * _REACH + 2
    )
    found: Array = by_step.cumsum()[:-1] / counts.sum()
    return found


def _ends(values: NDArray[np.float32], alpha: float) -> tuple[Array, Array]:
    """Return what the sums of the columns are at least and at most, less chance.

    Each value is predicted to be 0, as it is at the right ratio: none is further than 1 from that.
    """
    low, high = [], []
    columns = max(1, _CELLS // len(values))
    for at in range(0, values.shape[1], columns):
        piece = values[:, at : at + columns].astype(np.float64)
        sums, spread = piece.sum(axis=0), radius((piece**2).sum(axis=0), alpha / 2)
        low.append(sums - spread)
        high.append(sums + spread)
    return np.concatenate(low), np.concatenate(high)
