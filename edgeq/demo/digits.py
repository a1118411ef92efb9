"""The demo's data: scikit-learn's 1797 handwritten digits, split by a fixed seed, and a fog filter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 2026
CLASSES = 10
# Sizes of the parts, in the order of the shuffled samples; the rest is the traffic.
TRAINING = 900
CALIBRATION = 197
EVALUATION = 400

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitSet:
    """A part of the digits.

    Attributes:
        x: shape (samples, 8, 8, 1); 0 is white and 1 is black.
        y: shape (samples,), the digit.
    """

    x: Images
    y: Labels

    def save(self, path: Path) -> Path:
        """Write the part as .npz and return the path."""
        np.savez(path, x=self.x, y=self.y)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Disjoint parts of the data set.

    The drift reference is built from `evaluation`, never from the training data: a model is more confident on
    its training data than on anything else, so that all traffic would look shifted.
    """

    training: DigitSet
    calibration: DigitSet
    evaluation: DigitSet
    traffic: DigitSet


def load_digits() -> Digits:
    """Return the digits, shuffled and split by a fixed seed.

    Source: scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin, Kaynak,
        1998).
    """
    from sklearn.datasets import load_digits as bundled

    data = bundled()
    order = np.random.default_rng(SEED).permutation(len(data.images))
    x = (data.images[order, :, :, np.newaxis] / 16).astype(np.float32)
    y = data.target[order].astype(np.int64)
    ends = np.cumsum([TRAINING, CALIBRATION, EVALUATION])
    parts = [
        DigitSet(x=images, y=labels)
        for images, labels in zip(np.split(x, ends), np.split(y, ends), strict=True)
    ]  # fmt: skip
    return Digits(training=parts[0], calibration=parts[1], evaluation=parts[2], traffic=parts[3])


def with_fog(x: Images) -> Images:
    """Return foggy images: less contrast, a bright veil, a little noise; values stay in 0..1."""
    noise = np.random.default_rng(SEED).normal(0, 0.08, x.shape)
    return np.clip(0.45 * x + 0.35 + noise, 0, 1).astype(np.float32)
