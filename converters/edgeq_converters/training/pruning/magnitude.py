"""Magnitude pruning: masks over single weights, closed along a polynomial schedule during re-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import keras_graph

# Depthwise kernels are not pruned: they hold few weights, each of them a channel's only ones.
_KERNELS = {
    "Conv1D": ("kernel",),
    "Conv2D": ("kernel",),
    "Conv3D": ("kernel",),
    "Conv1DTranspose": ("kernel",),
    "Conv2DTranspose": ("kernel",),
    "Conv3DTranspose": ("kernel",),
    "Dense": ("kernel",),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
}
_RAMP = 0.6  # share of the steps; the rest re-tunes the remaining weights
_UPDATES = 50  # number of mask updates during the ramp


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The weights that magnitude pruning acts on.

    Attributes:
        variables: {layer: its weights}, in graph order.
        unpruned: {layer: why its weights are not pruned}.
    """

    variables: dict[str, Any]
    unpruned: dict[str, str]


def kernels(model: Any) -> Kernels:
    """Return the model's weights that can be pruned."""
    variables: dict[str, Any] = {}
    unpruned: dict[str, str] = {}
    for call in keras_graph.calls(model):
        layer = call.operation
        if call.kind in _KERNELS:
            for name in _KERNELS[call.kind]:
                variables[call.name] = next(weight for weight in layer.weights if weight.name == name)
        elif any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
            unpruned[call.name] = f"{call.kind} is not pruned by magnitude"
    return Kernels(variables=variables, unpruned=unpruned)


def mask_of(weight: npt.NDArray[Any], sparsity: float) -> npt.NDArray[np.float32]:
    """Return a mask of ones and zeros: zero for the smallest `sparsity` of the weights, ties by position."""
    mask = np.ones(weight.size, np.float32)
    mask[np.argsort(np.abs(weight).ravel(), kind="stable")[: round(sparsity * weight.size)]] = 0.0
    return mask.reshape(weight.shape)


def sparsity_at(step: int, total: int, final: float) -> float:
    """Return the sparsity at a step: final * (1 - (1 - t)^3), Zhu & Gupta 2017 (arXiv 1710.01878), eq. 1."""
    ramp = max(1, int(total * _RAMP))
    return final * (1.0 - (1.0 - min(1.0, (step + 1) / ramp)) ** 3)


class Masks:
    """The masks of a model during re-tuning."""

    def __init__(self, variables: Sequence[Any], *, final: float, total: int) -> None:
        import tensorflow as tf

        self._variables = list(variables)
        self._masks = [tf.Variable(np.ones(v.shape, np.float32), trainable=False) for v in variables]
        self._final, self._total = final, total
        self._every = max(1, int(total * _RAMP) // _UPDATES)

    def close(self, step: int) -> None:
        """Close the masks to the scheduled sparsity at `step`; after the ramp they no longer change."""
        ramp = max(1, int(self._total * _RAMP))
        if step < ramp and (step % self._every == 0 or step == ramp - 1):
            sparsity = sparsity_at(step, self._total, self._final)
            for variable, mask in zip(self._variables, self._masks, strict=True):
                mask.assign(mask_of(np.asarray(variable), sparsity))
            self.apply()

    def apply(self) -> None:
        """Set the pruned weights to exactly zero."""
        for variable, mask in zip(self._variables, self._masks, strict=True):
            variable.assign(variable.value * mask)
