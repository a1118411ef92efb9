"""Make an integer model of a small float model with min/max ranges, and run both on real values."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.calibration.ranges import calibrated_ranges
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import ignore
from edgeq_converters.quantization.backends import lstm
from edgeq_converters.quantization.quantize import Quantized, quantize
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme


def rows_of(model: Model, low: float, high: float, count: int = 16) -> list[list[np.ndarray]]:
    random = np.random.default_rng(1)
    return [
        [random.uniform(low, high, info.shape).astype(np.float32) for info in model.inputs]
        for _ in range(count)
    ]


def made_of(model: Model, rows: list[list[np.ndarray]], recipe: Recipe) -> Quantized:
    arrays = [np.stack([row[n] for row in rows]) for n in range(len(model.inputs))]
    arrays = [
        each[:, 0] if info.shape[:1] == (1,) else each
        for each, info in zip(arrays, model.inputs, strict=True)
    ]
    samples = Samples(inputs=model.inputs, arrays=tuple(arrays))
    grid = INT16 if recipe.scheme is Scheme.INT16X8 else INT8
    ranges = calibrated_ranges(model, observe(model, samples, advance=ignore), calibrator="minmax", grid=grid)
    return quantize(model, recipe=recipe, ranges={**ranges, **lstm.inner_ranges(model, samples)})


def outputs(model: Model, rows: list[list[np.ndarray]]) -> np.ndarray:
    interpreter = Interpreter(model)
    parts = []
    for row in rows:
        interpreter.reset()
        interpreter.run([_stored(v, d) for v, d in zip(row, interpreter.inputs, strict=True)])
        for values, detail in zip(interpreter.results(), interpreter.outputs, strict=True):
            scale, zero = detail["quantization"]
            parts.append(((values.astype(np.float64) - zero) * (scale or 1.0)).ravel())
    return np.concatenate(parts)


def _stored(values: np.ndarray, detail: Any) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return values
    limits = np.iinfo(detail["dtype"])
    steps = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
    return np.asarray(steps, detail["dtype"])


def decibels(exact: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / max(((exact - got) ** 2).sum(), 1e-30)))
