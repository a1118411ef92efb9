"""Figures that compare models: signal-to-quantization-noise ratio and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two powers; infinity without noise, -infinity without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def sqnr_db(outputs: Sequence[Array], references: Sequence[Array]) -> float:
    """Return the signal-to-quantization-noise ratio over all outputs, in dB; infinity when equal.

    10 log10(sum reference^2 / sum (reference - output)^2), summed in float64.

    Args:
        outputs: real values of the model that is judged, one array per output.
        references: the float model's values, in the same order and shapes.
    """
    exact = [np.asarray(reference, np.float64) for reference in references]
    signal = sum(float(np.sum(np.square(reference))) for reference in exact)
    noise = sum(
        float(np.sum(np.square(reference - np.asarray(output, np.float64))))
        for output, reference in zip(outputs, exact, strict=True)
    )
    return decibels(signal, noise)


def softmax(scores: Array) -> Array:
    """Return class probabilities along the last axis: exp(score) / sum exp(score), without overflow."""
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Array = grown / grown.sum(axis=-1, keepdims=True)
    return probabilities
