"""Calibrators: pure functions from a tensor's histogram to the range that its integers cover.

To add one, write a frozen class with `__call__` and give it an entry in CALIBRATORS. The entry's key is the
name that users write. If the calibrator has a parameter (`percentile:99.9`), that is the class's one field.
The command line's list of names and the candidates of `auto` follow from the table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.histogram import Counts, Histogram
from edgeq_converters.calibration.qparams import INT8, Grid, Range

Array = npt.NDArray[np.float64]
AUTO = "auto"
"""Not a calibrator: choose among them by the model's SQNR on held-out samples."""


class Calibrator(Protocol):
    """Decides a range. The histogram is not empty; zero need not lie in the range."""

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return (low, high) within the histogram's extremes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A calibrator in the table, and the parameters with which `auto` tries it.

    Attributes:
        whole_model: tried for all tensors at once, and for single tensors.
        single_tensors: tried for single tensors only.
        when_costly: tried for models whose runs are expensive; some of the two others.
    """

    kind: type[Calibrator]
    whole_model: tuple[str, ...] = ()
    single_tensors: tuple[str, ...] = ()
    when_costly: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MinMax:
    """The exact extremes: no calibration value is clipped."""

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return the extremes."""
        return histogram.minimum, histogram.maximum


@dataclass(frozen=True, slots=True)
class MovingAverage:
    """The mean of each sample's own extremes: the expected moving average over all orders of the samples.

    The exponential moving average of TensorFlow and litert-quantizer weights samples by their position. The
    weights sum to one and do not depend on the values, so that the mean over all orders is the plain mean.
    Source: Krishnamoorthi, arXiv 1806.08342, section 3.
    """

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return the means."""
        low = min(max(_mean(histogram.lows), histogram.minimum), histogram.maximum)
        return low, max(min(_mean(histogram.highs), histogram.maximum), low)


@dataclass(frozen=True, slots=True)
class Percentile:
    """The two-sided percentile: the same share of values is clipped above and below.

    Source: Wu et al., "Integer Quantization for Deep Learning Inference", arXiv 2004.09602, section 5.

    Attributes:
        percent: above 50, at most 100: the share of values below the range's upper end, and of values above
            its lower end.
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise ValueError(f"percentile: expected a number above 50 and at most 100, got {self.percent:g}")

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return the percentiles, interpolated linearly within a bin."""
        low, high, counts = histogram.bins()
        below = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
        above = self.percent / 100 * below[-1]
        return _quantile(low, high, below, below[-1] - above), _quantile(low, high, below, above)


@dataclass(frozen=True, slots=True)
class Clip:
    """A fixed share of the extremes, whatever the distribution between them.

    Attributes:
        share: above 0, at most 1.
    """

    share: float = 0.85

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"clip: expected a share above 0 and at most 1, got {self.share:g}")

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return the extremes, scaled towards zero; a range of one value stays."""
        low, high = histogram.minimum, histogram.maximum
        if low == high:
            return low, high
        clipped = min(low * self.share, high) if low < 0 else low
        return clipped, max(high * self.share if high > 0 else high, clipped)


@dataclass(frozen=True, slots=True)
class Entropy:
    """The threshold with the least Kullback-Leibler divergence between the values and their quantized form.

    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017. For each threshold, the values beyond it are
    added to the last bin (P); P is quantized to 128 levels and spread back over its occupied bins (Q); the
    threshold with the least KL(P, Q) wins. As in the source, thresholds apply to magnitudes, the same for
    both signs. As in its later versions, the bin at zero counts as much as its neighbour, because zeros cost
    nothing. A tensor of one sign has 256 levels.

    The 2048 bins are filled from the finer or coarser bins of the histogram, spread evenly.
    """

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return the extremes, clipped to the threshold on both sides."""
        largest = max(abs(histogram.minimum), abs(histogram.maximum))
        if largest == 0 or grid != INT8:  # 16 bits have more levels than there are bins
            return histogram.minimum, histogram.maximum
        levels = 128 if histogram.minimum < 0 < histogram.maximum else 256
        limit = largest * _entropy_threshold(_magnitudes(histogram, largest, _BINS), levels) / _BINS
        return max(histogram.minimum, -limit), min(histogram.maximum, limit)


@dataclass(frozen=True, slots=True)
class Mse:
    """The range with the least mean squared error on the integer grid, with its rounded zero point.

    A search over clip ratios: first one ratio for both ends, then each end alone.
    Source: Banner et al., "Post training 4-bit quantization", arXiv 1810.05723, which solves for the clipping
    value of an assumed distribution; here the error is summed over the histogram, as in MQBench.
    """

    def __call__(self, histogram: Histogram, grid: Grid = INT8) -> Range:
        """Return the best range of the search."""
        low, high = histogram.minimum, histogram.maximum
        values, weights = _points(histogram)

        def error(ratios: tuple[float, float]) -> float:
            kept = grid.rounded(values, low * ratios[0], high * ratios[1])
            kept -= values
            return float(np.dot(weights, np.square(kept, out=kept)))

        best = _search(error, both=low < 0 < high and not grid.symmetric)
        return low * (best[0] if low < 0 else 1), high * (best[1] if high > 0 else 1)


CALIBRATORS: Mapping[str, Entry] = {
    "minmax": Entry(kind=MinMax, whole_model=("minmax",), when_costly=("minmax",)),
    "ema": Entry(kind=MovingAverage),
    "percentile": Entry(
        kind=Percentile,
        whole_model=("percentile:99.999", "percentile:99.99"),
        when_costly=("percentile:99.99",),
    ),
    "mse": Entry(kind=Mse, whole_model=("mse",), when_costly=("mse",)),
    "clip": Entry(
        kind=Clip, single_tensors=("clip:0.85", "clip:0.7", "clip:0.55"), when_costly=("clip:0.7",)
    ),
    "entropy": Entry(kind=Entropy),
}


def usage() -> str:
    """Return how users may write each calibrator: `minmax, percentile[:PERCENT], ... or auto`."""
    known = []
    for name, entry in CALIBRATORS.items():
        parameters = fields(entry.kind)  # type: ignore[arg-type] # each is a dataclass
        known.append(f"{name}[:{parameters[0].name.upper()}]" if parameters else name)
    return f"{', '.join(known)} or {AUTO}"


def calibrator_of(text: str) -> Calibrator:
    """Return the calibrator that a user wrote: `mse`, `percentile:99.9`.

    Raises:
        ValueError: an unknown name (the message suggests the nearest), an invalid parameter, or a parameter
            for a calibrator without one.
    """
    name, _, parameter = text.partition(":")
    if name not in CALIBRATORS:
        near = difflib.get_close_matches(name, [*CALIBRATORS, AUTO], n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown calibrator {name!r}{meant} (known are {', '.join(CALIBRATORS)}, {AUTO})")
    kind = CALIBRATORS[name].kind
    if ":" not in text:
        return kind()
    if not fields(kind):  # type: ignore[arg-type] # each is a dataclass
        raise ValueError(f"the calibrator {name!r} takes no parameter, got {parameter!r}")
    try:
        value = float(parameter)
    except ValueError:
        raise ValueError(f"{name}: expected a number after the colon, got {parameter!r}") from None
    return kind(value)  # type: ignore[call-arg] # its one field


_BINS = 2048
_SHARES = tuple(round(1 - 0.02 * step, 2) for step in range(36))


def _mean(counts: Counts) -> float:
    low, high, number = counts.edges()
    return float(np.dot((low + high) / 2, number) / number.sum())


def _quantile(low: Array, high: Array, below: Array, rank: float) -> float:
    at = int(np.clip(np.searchsorted(below, rank, side="left") - 1, 0, len(low) - 1))
    share = min(max((rank - below[at]) / (below[at + 1] - below[at]), 0.0), 1.0)
    return float(low[at] + share * (high[at] - low[at]))


def _magnitudes(histogram: Histogram, largest: float, bins: int) -> Array:
    """Return how many values have a magnitude in each of `bins` equal parts of 0..largest."""
    low, high, counts = histogram.bins()
    near, far = np.minimum(np.abs(low), np.abs(high)), np.maximum(np.abs(low), np.abs(high))
    point = (far - near) <= 0
    magnitudes = np.zeros(bins)
    places = np.minimum((far[point] / largest * bins).astype(np.int64), bins - 1)
    np.add.at(magnitudes, places, counts[point])
    # Spread wide bins of the histogram evenly: their cumulative share below each edge, then differences.
    edges = np.linspace(0, largest, bins + 1)
    for sign in (low < 0, low >= 0):
        some = sign & ~point
        if some.any():
            order = np.argsort(near[some])
            starts, ends, number = near[some][order], far[some][order], counts[some][order]
            done = np.concatenate([[0], np.cumsum(number)])
            at = np.clip(np.searchsorted(starts, edges, side="right") - 1, 0, len(starts) - 1)
            share = np.clip((edges - starts[at]) / (ends[at] - starts[at]), 0, 1)
            magnitudes += np.diff(done[at] + share * number[at])
    return magnitudes


def _entropy_threshold(counts: Array, levels: int) -> int:
    """Return the number of bins below the best threshold."""
    counts = counts.copy()
    counts[0] = counts[1]
    best, least = len(counts), np.inf
    if not counts.any():
        return best
    for kept in range(levels, len(counts) + 1, levels // 16):
        inside = counts[:kept]
        if not inside.any():
            continue
        # Levels as equal as whole bins allow, as in the source; empty bins stay empty in Q.
        level = np.arange(kept) * levels // kept
        filled = inside > 0
        sums = np.bincount(level, weights=inside, minlength=levels)
        spread = np.bincount(level, weights=filled, minlength=levels)
        q = np.where(filled, sums[level] / np.maximum(spread[level], 1), 0)
        p = inside.copy()
        p[-1] += counts[kept:].sum()
        both = filled & (p > 0)
        p, q = p / p.sum(), q / q.sum()
        missing = float(p[~filled].sum())  # clipped values in a bin that is empty in Q: infinite divergence
        divergence = np.inf if missing > 0 else float(np.sum(p[both] * np.log(p[both] / q[both])))
        if divergence < least:
            best, least = kept, divergence
    return best


def _points(histogram: Histogram) -> tuple[Array, Array]:
    """Return (values, weights) that represent the bins; several for a bin wider than a step of the grid."""
    low, high, counts = histogram.bins()
    largest = max(abs(histogram.minimum), abs(histogram.maximum)) or 1.0
    parts = np.clip(np.ceil((high - low) / largest * 1024), 1, 8).astype(np.int64)
    starts, widths = np.repeat(low, parts), np.repeat((high - low) / parts, parts)
    number = np.arange(len(starts)) - np.repeat(np.cumsum(parts) - parts, parts)
    return starts + (number + 0.5) * widths, np.repeat(counts / parts, parts) / histogram.total


class _Error(Protocol):
    def __call__(self, ratios: tuple[float, float]) -> float: ...


def _search(error: _Error, *, both: bool) -> tuple[float, float]:
    """Return the best (ratio of the lower end, ratio of the upper end)."""
    errors: dict[tuple[float, float], float] = {}

    def least(candidates: Iterator[tuple[float, float]]) -> tuple[float, float]:
        # Wider ranges come first and win among equal errors.
        for ratios in candidates:
            if ratios not in errors:
                errors[ratios] = error(ratios)
        return min(errors, key=lambda ratios: errors[ratios])

    best = least((share, share) for share in _SHARES)
    for reach in (0.12, 0.02):
        near = [reach * step / 6 for step in range(-6, 7)]
        if both:
            for _ in range(2):
                best = least((_ratio(best[0] + move), best[1]) for move in near)
                best = least((best[0], _ratio(best[1] + move)) for move in near)
        else:
            best = least((_ratio(best[0] + move),) * 2 for move in near)
    return best


def _ratio(value: float) -> float:
    return round(min(max(value, 0.02), 1.0), 6)
