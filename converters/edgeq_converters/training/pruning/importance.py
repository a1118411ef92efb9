"""How much each channel matters: its filter's norm, times the scale that batch normalization gives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning.channel_flow import ChannelFlow

_OUTPUT_AXIS = {"Conv1DTranspose": -2, "Conv2DTranspose": -2, "Conv3DTranspose": -2}


def importance(model: Any, flow: ChannelFlow, makers: list[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Return {layer: one figure a channel}, with mean one over each layer's channels.

    The L1 norm of the channel's filter (Li et al., arXiv 1608.08710), times |gamma| / sqrt(variance) where a
    batch normalization follows at once (the slimming factor of Liu et al., arXiv 1708.06519).
    """
    calls = keras_graph.calls(model)
    scales = _scales(calls)
    found = {}
    for call in calls:
        if call.name not in makers or call.name in found:
            continue
        kernel = _kernel(call.operation)
        axis = _OUTPUT_AXIS.get(call.kind, -1) % kernel.ndim
        norm = np.abs(kernel).sum(axis=tuple(i for i in range(kernel.ndim) if i != axis))
        norm = norm * scales.get(id(call.outputs[0]), 1.0)
        found[call.name] = norm / max(float(norm.mean()), 1e-30)
    return found


def _kernel(layer: Any) -> npt.NDArray[np.float64]:
    name = "pointwise_kernel" if hasattr(layer, "pointwise_kernel") else "kernel"
    return np.asarray(getattr(layer, name), np.float64)


def _scales(calls: list[keras_graph.Call]) -> dict[int, npt.NDArray[np.float64]]:
    found = {}
    for call in calls:
        if call.kind == "BatchNormalization":
            layer = call.operation
            deviation = np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
            gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(deviation)
            found[id(call.inputs[0])] = np.abs(gamma) / deviation
    return found
