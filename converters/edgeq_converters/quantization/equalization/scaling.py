"""The factor of each channel that makes the noise of activations and weights together the least."""

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
"""What is left of the noise of rounded weights once they are corrected."""

_WIDEST = 256.0
"""A channel that is nearly dead is not blown up by more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """What was seen of a tensor, channel by channel.

    Attributes:
        largest: the greatest magnitude.
        power: the mean square.
    """

    largest: Array
    power: Array


def factors(group: Group, seen: Mapping[int, Channels], matrices: Mapping[int, Array]) -> Array:
    """Return the factor of each channel of a group; all ones where nothing is gained.

    A per-tensor scale gives each channel the same step, so that a channel of a smaller range is the coarser
    one: its factor stretches it. What reads the channel is divided by the factor, which costs dense weights
    precision (one scale an output channel) and depthwise weights none. Among powers of the channels' ranges
    and of their readers' weights, the least of the modelled noise wins (Nagel et al. 2019, arXiv 1906.04721,
    choose one of these, which equalizes weights only).

    Args:
        seen: of the group's tensors, by index.
        matrices: consumers' weights as (groups, width, fan_in), by index of the weights.
    """
    tensors = [seen[i] for i in group.tensors if i in seen]
    spans = np.stack([item.largest / max(item.largest.max(), 1e-30) for item in tensors])
    span = np.maximum(spans.max(0), 1 / _WIDEST)
    dense = [
        _columns(matrices[layer.weights], group.channels) for layer in group.consumers if layer.groups == 1
    ]
    reach = (
        np.max([np.abs(matrix).max(0) / max(np.abs(matrix).max(), 1e-30) for matrix in dense], 0)
        if dense
        else np.ones(group.channels)
    )
    reach = np.maximum(reach, 1 / _WIDEST)
    power = np.mean([item.power for item in tensors], 0)
    ceiling = _ceiling(group, tensors)
    best, least = np.ones(group.channels), np.inf
    for alpha in _POWERS:
        for beta in _POWERS if dense else (0.0,):
            tried = span**-alpha * reach**beta
            tried = _bounded(tried / tried.min(), ceiling)
            noise = _noise(tried, [item.largest for item in tensors], power, dense)
            if noise < least * 0.999:
                best, least = tried, noise
    return best


def _ceiling(group: Group, tensors: list[Channels]) -> Array | None:
    if not np.isfinite(group.limit):
        return None
    largest = np.max([item.largest for item in tensors], 0)
    # A channel that reached the bound is cut there: it must stay as it is. The others stay below it.
    return np.where(
        largest >= group.limit * 0.999, 1.0, group.limit / np.maximum(largest, group.limit / _WIDEST)
    )


def _bounded(tried: Array, ceiling: Array | None) -> Array:
    if ceiling is None:
        return tried
    fixed = ceiling == 1.0
    tried = np.minimum(tried, ceiling)
    return np.where(fixed, 1.0, tried)


def _columns(matrix: Array, channels: int) -> Array:
    """Return dense weights with all taps of a channel in rows of their own: (rows, channels)."""
    rows: Array = matrix[0].reshape(-1, channels)
    return rows


def _noise(tried: Array, largest: list[Array], power: Array, dense: list[Array]) -> float:
    activations = sum(float((tried * high).max()) ** 2 for high in largest) / (255.0**2 * 12)
    if not dense:
        return float(activations * np.mean(1 / tried**2))
    total = 0.0
    for matrix in dense:
        squares = np.square(matrix)
        signal = max(float((squares @ power).sum()), 1e-30)
        rounded = float((squares / tried**2).sum()) * activations
        steps = (np.abs(matrix) / tried).max(1) / 127
        weights = float((steps**2).sum()) / 12 * float((power * tried**2).sum())
        total += (rounded + _WEIGHTS_SHARE * weights) / signal
    return total
