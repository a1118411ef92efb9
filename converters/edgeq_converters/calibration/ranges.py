"""Ranges of tensors: from histograms by a calibrator, or learned in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
        low, high: float32. The range of a whole tensor is a scalar. The range of per-channel weights has the
            weights' rank, with one value per output channel.
    """

    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]

    @classmethod
    def per_tensor(cls, low: float, high: float) -> TensorRange:
        """Return one range for a whole tensor.

        It is a scalar because it also quantizes constants that share it, such as the bound of a MAXIMUM or a
        member of a PACK. Their rank may differ, and only a scalar fits every rank.
        """
        return cls(low=np.array(low, np.float32), high=np.array(high, np.float32))

    def holding(self, other: TensorRange) -> TensorRange:
        """Return the range that holds this one and another one."""
        return TensorRange(low=np.minimum(self.low, other.low), high=np.maximum(self.high, other.high))


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
            ranges[name] = TensorRange.per_tensor(low, high)
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
    """Return the ranges that training learned, of the tensors that the model has.

    Args:
        learned: (tensor, low, high), as in `Recipe.ranges`.
    """
    names = _activations(model)
    return {name: TensorRange.per_tensor(low, high) for name, low, high in learned if name in names}


def require_known(model: Model, learned: Iterable[tuple[str, float, float]]) -> None:
    """Check that learned ranges belong to a model, before the conversion divides or moves its outputs.

    Raises:
        ConverterError: EQ318 the model has no such tensor.
    """
    names = _activations(model)
    for name, _, _ in learned:
        if name not in names:
            raise ConverterError(
                "EQ318",
                model.subject,
                f"the recipe has a range for {name!r}, and the model has no such tensor",
                hint="`edgeq tune MODEL --qat -o TUNED` writes a model and its recipe: use both",
            )


def _activations(model: Model) -> set[str]:
    return {tflite_file.tensor_name(tensor) for _, tensor in tflite_file.activations(model.parsed)}
