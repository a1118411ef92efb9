"""Where training with fake quantization starts: the best of what conversion alone knows to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.calibration import observe
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import tflite_file
from edgeq_converters.progress import Step
from edgeq_converters.training.common import loop
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat import activation_points, equalized
from edgeq_converters.training.qat.activation_points import Points
from edgeq_converters.training.qat.fake_quant import LearnedRange
from edgeq_converters.training.qat.quantized_forward import QuantizedForward
from edgeq_converters.training.qat.scoring import Judge, Score

CALIBRATORS = ("minmax", "percentile:99.99", "percentile:99.999", "mse")
"""Whose ranges are tried; training moves them from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A forward pass with fake quantization, ready to be trained.

    Attributes:
        model: whose weights are trained; equalized where that was better.
        score: on the samples of the judge, before any training.
    """

    model: Any
    found: Points
    ranges: dict[str, LearnedRange]
    forward: QuantizedForward
    equalized: bool
    calibrator: str
    score: Score


def best(
    model: Any,
    hub: bytes,
    data: LabelledData,
    *,
    judge: Judge,
    weight_bits: int,
    subject: str,
    step: Step,
) -> Start:
    """Return the best start: the weights as they are or equalized, with the ranges of each calibrator.

    The judge decides by the fake-quantized outputs. Only the winner's weights stay in the model.

    Args:
        hub: the model's float .tflite.
        data: samples to calibrate on.
    """
    inputs, _ = tflite_file.inputs_and_outputs(tflite_file.parse(hub, subject=subject))
    samples = Samples(inputs=inputs, arrays=data.arrays)
    advance = step("choose where to start", 2 * len(CALIBRATORS))
    kept: tuple[Start, list[Any]] | None = None
    plain = model.get_weights()
    for is_equalized in (False, True):
        used: bytes | None = hub
        if is_equalized:
            model.set_weights(plain)
            used = equalized.equalize(model, hub, samples, subject=subject)
        if used is None:
            advance(len(CALIBRATORS))
            continue
        found = activation_points.find(model, used, data, subject=subject)
        histograms = observe.observe(used, samples, subject=subject, advance=lambda _count: None)
        for calibrator in CALIBRATORS:
            ranges = _ranges(used, histograms, found, calibrator, subject)
            forward = QuantizedForward(model, found, ranges, weight_bits=weight_bits)
            score = judge.score(loop.outputs_of(forward, judge.data))
            if kept is None or score.loss < kept[0].score.loss:
                start = Start(
                    model=model,
                    found=found,
                    ranges=ranges,
                    forward=forward,
                    equalized=is_equalized,
                    calibrator=calibrator,
                    score=score,
                )
                kept = start, model.get_weights()
            advance(1)
    if kept is None:
        raise TypeError("the model as it is was tried")
    model.set_weights(kept[1])
    return kept[0]


def _ranges(
    hub: bytes, histograms: Any, found: Points, calibrator: str, subject: str
) -> dict[str, LearnedRange]:
    ranges = observe.ranges(hub, histograms, calibrator=calibrator, subject=subject)
    return {
        key: LearnedRange(
            min(float(np.min(ranges[name]["min"])) for name in names),
            max(float(np.max(ranges[name]["max"])) for name in names),
        )
        for key, names in found.names.items()
    }
