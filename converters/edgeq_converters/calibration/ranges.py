"""Ranges of tensors: from histograms by a calibrator, or learned in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.calibrators import calibrator_of
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.qparams import INT8, Grid
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorRange:
    """The real values that a tensor's integers cover.

    Attributes:
        low, high: float32, of the tensor's rank. All dimensions are one; the range of per-channel weights has
            one value per output channel.
    """

    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]

    @classmethod
    def per_tensor(cls, tensor: Any, low: float, high: float) -> TensorRange:
        """Return one range for a whole tensor of the schema."""
        ones = (1,) * (0 if tensor.shape is None else len(tensor.shape))
        return cls(low=np.full(ones, low, np.float32), high=np.full(ones, high, np.float32))


Ranges = dict[str, TensorRange]
"""By tensor name."""


def calibrated_ranges(
    model: Model, histograms: Mapping[str, Histogram], *, calibrator: str, grid: Grid = INT8
) -> Ranges:
    """Return the range of each activation that a calibrator computes from its histogram, with headroom.

    Args:
        calibrator: a name of calibrators.CALIBRATORS, with its parameter after a colon.
        grid: the integers that the activations will become.

    Raises:
        ConverterError: EQ309 a range is wider than float32 can represent.
        ValueError: no such calibrator.
    """
    calibrate = calibrator_of(calibrator)
    ranges: Ranges = {}
    for _, tensor in tflite_file.activations(model.parsed):
        name = tflite_file.tensor_name(tensor)
        histogram = histograms[name]
        if histogram.total:
            low, high = (end * grid.headroom for end in calibrate(histogram, grid))
            if high - low > LARGEST:
                raise overflow(model.subject, name, low, high)
            ranges[name] = TensorRange.per_tensor(tensor, low, high)
    return ranges


def overflow(subject: str, name: str, low: float, high: float) -> ConverterError:
    """Return the error for a tensor whose values float32 cannot represent."""
    return ConverterError(
        "EQ309",
        subject,
        f"the values of tensor {name!r} overflow float32",
        got=f"{low:.3g} to {high:.3g}",
        hint="scale the calibration data as the model's training data was scaled",
    )


def learned_ranges(model: Model, learned: Iterable[tuple[str, float, float]]) -> Ranges:
    """Return the ranges that training learned.

    Args:
        learned: (tensor, low, high), as in `Recipe.ranges`.

    Raises:
        ConverterError: EQ318 the model has no such tensor.
    """
    tensors = {tflite_file.tensor_name(tensor): tensor for _, tensor in tflite_file.activations(model.parsed)}
    ranges: Ranges = {}
    for name, low, high in learned:
        if name not in tensors:
            raise ConverterError(
                "EQ318",
                model.subject,
                f"the recipe has a range for {name!r}, and the model has no such tensor",
                hint="`edgeq tune MODEL --qat -o TUNED.keras` writes a model and its recipe: use both",
            )
        ranges[name] = TensorRange.per_tensor(tensors[name], low, high)
    return ranges
