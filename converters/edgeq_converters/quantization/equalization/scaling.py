"""Find the factor of each channel that gives the least combined noise of activations and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.quantization.equalization.groups import Group

Array = npt.NDArray[Any]
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_WEIGHTS_SHARE = 0.3
"""The share of the noise of rounded weights that remains after correction."""

_WIDEST = 256.0
"""Largest factor of a channel that is nearly dead."""
_ROW_VALUES = 512
_SUMMED_ROWS = 256
"""Rows whose squares are summed in single precision: few enough to lose no digits that matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Statistics of a tensor's values, one per channel.

    Attributes:
        largest: the largest magnitude.
        power: the mean square.
    """

    largest: Array
    power: Array

    @classmethod
    def of(cls, values: Array) -> Channels:
        """Return the statistics of values of shape (at least one row, channels)."""
        count, width = values.shape
        # numpy reduces long rows many times faster: several rows become one, and the rest goes apart.
        joined = max(_ROW_VALUES // width, 1)
        whole = count // joined * joined
        parts = [values[:whole].reshape(-1, joined * width), values[whole:]]
        largest, power = np.zeros(width), np.zeros(width)
        for part in parts:
            for start in range(0, len(part), _SUMMED_ROWS):
                block = part[start : start + _SUMMED_ROWS]
                ends = np.maximum(block.max(0), -block.min(0)).reshape(-1, width)
                largest = np.maximum(largest, ends.max(0))
                power += np.einsum("nc,nc->c", block, block).reshape(-1, width).sum(0, dtype=np.float64)
        return cls(largest=largest, power=power / count)


def factors(group: Group, channels: Mapping[int, Channels], matrices: Mapping[int, Array]) -> Array:
    """Return the factor of each channel of a group; all ones if nothing is gained.

    A per-tensor scale gives all channels the same step, so that a channel with a small range has few levels:
    its factor stretches it. The weights that read the channel are divided by the factor. That costs dense
    weights precision (they have one scale per output channel) and depthwise weights none. The candidates are
    powers of the channels' ranges and of their readers' weights; that with the least modelled noise wins.
    Nagel et al. 2019, arXiv 1906.04721, use one of these candidates, which equalizes weights only.

    Args:
        channels: statistics of the group's tensors, by tensor index.
        matrices: consumers' weights as (groups, width, fan_in), by tensor index.
    """
    tensors = [_spread(group, i, channels[i]) for i in group.tensors if i in channels]
    spans = np.stack([item.largest / max(item.largest.max(), 1e-30) for item in tensors])
    span = np.maximum(spans.max(0), 1 / _WIDEST)
    dense = [
        _columns(matrices[layer.weights], group, layer.source)
        for layer in group.consumers
        if layer.groups == 1
    ]
    reach = (
        np.max([np.abs(matrix).max(0) / max(np.abs(matrix).max(), 1e-30) for matrix in dense], 0)
        if dense
        else np.ones(group.channels)
    )
    reach = np.maximum(reach, 1 / _WIDEST)
    written = np.sum([np.isin(np.arange(group.channels), group.classes[i]) for i in group.tensors], 0)
    power = np.sum([item.power for item in tensors], 0) / np.maximum(written, 1)
    ceiling = _ceiling(group, tensors)
    best, least = np.ones(group.channels), np.inf
    for alpha in _POWERS:
        for beta in _POWERS if dense else (0.0,):
            candidate = span**-alpha * reach**beta
            candidate = _bounded(candidate / candidate.min(), ceiling)
            noise = _noise(candidate, [item.largest for item in tensors], power, dense)
            if noise < least * 0.999:
                best, least = candidate, noise
    return best


def _spread(group: Group, index: int, own: Channels) -> Channels:
    """Return a tensor's statistics by class; 0 for the classes that it does not hold."""
    largest, power = np.zeros(group.channels), np.zeros(group.channels)
    largest[group.classes[index]], power[group.classes[index]] = own.largest, own.power
    return Channels(largest=largest, power=power)


def _ceiling(group: Group, tensors: list[Channels]) -> Array | None:
    if not np.isfinite(group.limit):
        return np.where(group.fixed, 1.0, np.inf) if group.fixed.any() else None
    largest = np.max([item.largest for item in tensors], 0)
    # A channel that reaches the bound is clipped there and must not be scaled; others must stay below it.
    return np.where(
        group.fixed | (largest >= group.limit * 0.999),
        1.0,
        group.limit / np.maximum(largest, group.limit / _WIDEST),
    )


def _bounded(scales: Array, ceiling: Array | None) -> Array:
    if ceiling is None:
        return scales
    return np.where(ceiling == 1.0, 1.0, np.minimum(scales, ceiling))


def _columns(matrix: Array, group: Group, source: int) -> Array:
    """Return dense weights as (rows, classes), with one row for each tap; 0 for what they do not read."""
    classes = group.classes[source]
    rows = matrix[0].reshape(-1, len(classes))
    columns = np.zeros((len(rows), group.channels))
    columns[:, classes] = rows
    return columns


def _noise(scales: Array, largest: list[Array], power: Array, dense: list[Array]) -> float:
    activations = sum(float((scales * high).max()) ** 2 for high in largest) / (255.0**2 * 12)
    if not dense:
        return float(activations * np.mean(1 / scales**2))
    total = 0.0
    for matrix in dense:
        squares = np.square(matrix)
        signal = max(float((squares @ power).sum()), 1e-30)
        rounded = float((squares / scales**2).sum()) * activations
        steps = (np.abs(matrix) / scales).max(1) / 127
        weights = float((steps**2).sum()) / 12 * float((power * scales**2).sum())
        total += (rounded + _WEIGHTS_SHARE * weights) / signal
    return total
