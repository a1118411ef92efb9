"""Describe the spread of a tensor's values for reports: extremes, central range, histogram, channel ratio."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.sensitivity.values import Spread

_BINS = 40
_TAIL = 1e-4
# The axis of a weight along which it has one scale per channel.
_CHANNEL_AXIS = {"CONV_2D": 0, "TRANSPOSE_CONV": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


def activation_spread(name: str, histogram: Histogram, channel_ratio: float | None) -> Spread | None:
    """Return the spread of a calibrated activation; None for an empty histogram."""
    if not histogram.total:
        return None
    values, counts = histogram.occupied()
    return _spread(
        name, values.astype(np.float64), counts, (histogram.minimum, histogram.maximum), channel_ratio
    )


def weight_spread(model: Model, position: int) -> Spread | None:
    """Return the spread of the largest float constant that an operation reads; None without one."""
    parsed, graph = model.parsed, model.graph
    operator = graph.operators[position]
    constants = [
        graph.tensors[int(i)]
        for i in operator.inputs
        if i >= 0
        and tflite_file.is_constant(parsed, graph.tensors[int(i)])
        and tflite_file.type_name(graph.tensors[int(i)]) == "FLOAT32"
    ]
    if not constants:
        return None
    tensor = max(constants, key=lambda each: len(parsed.buffers[each.buffer].data))
    values = edit.constant(parsed, tensor).astype(np.float64)
    axis = _CHANNEL_AXIS.get(tflite_file.op_name(parsed, operator))
    ratio = None
    if axis is not None and axis < values.ndim:
        peaks = np.abs(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)).max(axis=1)
        ratio = channel_ratio(peaks)
    ordered = np.sort(values.ravel())
    return _spread(
        tflite_file.tensor_name(tensor),
        ordered,
        np.ones(ordered.size, np.int64),
        (float(ordered[0]), float(ordered[-1])),
        ratio,
    )


def channel_ratio(peaks: npt.NDArray[np.float64]) -> float | None:
    """Return the largest over the median of the channels' largest magnitudes; None with one channel.

    Channels that are always zero do not count: a dead channel needs no range.
    """
    alive = peaks[peaks > 0]
    return float(alive.max() / np.median(alive)) if alive.size > 1 else None


def _spread(
    name: str,
    values: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    ends: tuple[float, float],
    ratio: float | None,
) -> Spread:
    """Return the spread of ascending values, each of which occurs `counts` times."""
    low, high = ends
    reached = np.cumsum(counts)
    first = values[int(np.searchsorted(reached, _TAIL * reached[-1], side="right").clip(0, len(values) - 1))]
    last = values[int(np.searchsorted(reached, (1 - _TAIL) * reached[-1]).clip(0, len(values) - 1))]
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    binned, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges, weights=counts)
    return Spread(
        name=name,
        minimum=low,
        maximum=high,
        central=(max(float(first), low), min(float(last), high)),
        channel_ratio=ratio,
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in binned),
    )
