"""The figures of an evaluation as pure functions of real-valued outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]


def predicted(output: Real) -> npt.NDArray[np.int64]:
    """Return each sample's class: the index of the largest value of the last axis; the first of equal ones.

    Args:
        output: (samples, classes), or with axes of length one between.
    """
    best: npt.NDArray[np.int64] = np.argmax(output.reshape(len(output), -1), axis=1).astype(np.int64)
    return best


def accuracy(output: Real, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of samples whose predicted class is the label, 0..1."""
    return float(np.mean(predicted(output) == labels))


def agreement(output: Real, reference: Real) -> float:
    """Return the share of samples with the reference's predicted class, 0..1."""
    return float(np.mean(predicted(output) == predicted(reference)))
