"""The starting point of QAT: the best initialization that post-training quantization offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.ranges import calibrated_ranges
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step, ignore
from edgeq_converters.training.common import loop
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat import activation_points, equalized
from edgeq_converters.training.qat.activation_points import ActivationPoints
from edgeq_converters.training.qat.fake_quant import LearnedRange
from edgeq_converters.training.qat.quantized_forward import QuantizedForward
from edgeq_converters.training.qat.scoring import Score, Scorer

CALIBRATORS = ("minmax", "percentile:99.99", "percentile:99.999", "mse")
"""The calibrators to try for the initial ranges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A forward pass with fake quantization, ready for training.

    Attributes:
        model: the Keras model to train; equalized where that scored better.
        calibrator: of the initial ranges.
        score: before training, on the scorer's samples.
    """

    model: Any
    points: ActivationPoints
    ranges: dict[str, LearnedRange]
    forward: QuantizedForward
    equalized: bool
    calibrator: str
    score: Score


def best(
    model: Any,
    hub: Model,
    data: LabelledData,
    *,
    scorer: Scorer,
    weight_bits: int,
    step: Step,
) -> Start:
    """Return the best start: the weights unchanged or equalized, with the ranges of each calibrator.

    The loss of the fake-quantized outputs decides. The model ends with the winner's weights.

    Args:
        hub: the model's float .tflite.
        data: samples to calibrate on.
    """
    samples = Samples(inputs=hub.inputs, arrays=data.arrays)
    advance = step("choose the starting point", 2 * len(CALIBRATORS))
    kept: tuple[Start, list[Any]] | None = None
    plain = model.get_weights()
    for is_equalized in (False, True):
        used: Model | None = hub
        if is_equalized:
            model.set_weights(plain)
            used = equalized.equalize(model, hub, samples)
        if used is None:
            advance(len(CALIBRATORS))
            continue
        points = activation_points.find(model, used, data)
        histograms = observe(used, samples, advance=ignore)
        for calibrator in CALIBRATORS:
            ranges = _ranges(used, histograms, points, calibrator)
            forward = QuantizedForward(model, points, ranges, weight_bits=weight_bits)
            score = scorer.score(loop.outputs_of(forward, scorer.data))
            if kept is None or score.loss < kept[0].score.loss:
                start = Start(
                    model=model,
                    points=points,
                    ranges=ranges,
                    forward=forward,
                    equalized=is_equalized,
                    calibrator=calibrator,
                    score=score,
                )
                kept = start, model.get_weights()
            advance(1)
    if kept is None:
        raise TypeError("the unchanged model is always tried")
    model.set_weights(kept[1])
    return kept[0]


def _ranges(
    hub: Model, histograms: Mapping[str, Histogram], points: ActivationPoints, calibrator: str
) -> dict[str, LearnedRange]:
    ranges = calibrated_ranges(hub, histograms, calibrator=calibrator)
    return {
        key: LearnedRange(
            min(float(np.min(ranges[name].low)) for name in names),
            max(float(np.max(ranges[name].high)) for name in names),
        )
        for key, names in points.names.items()
    }
