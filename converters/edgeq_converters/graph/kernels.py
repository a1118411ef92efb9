"""Check that the runtime's optimized and plain kernels compute a quantized model alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import logits
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import decibels

_BATCHES = 8
LEAST_DB = 6.0
"""SQNR at the logits between optimized and plain kernels.

They round differently, which gives 20 to 40 dB for sound int8 models; weights that are read wrongly give
about 0 dB.
"""


def require_alike(model: Model) -> None:
    """Check that both kinds of kernels run the model, with nearly the same results on random inputs.

    Raises:
        ConverterError: EQ303 the model does not run, EQ308 the kernels differ.
    """
    cut = logits.cut(model).model
    optimized, plain = (_random_outputs(cut, plain=plain) for plain in (False, True))
    # A constant output has no variance that noise could be compared with: allow one percent of its value.
    noise = max(float(np.square(optimized - plain).mean()), 1e-30)
    signal = max(float(plain.var()), float(np.square(plain).mean()) * 1e-4)
    if signal and decibels(signal, noise) < LEAST_DB:
        raise ConverterError(
            "EQ308", model.subject, "the runtime's optimized and plain kernels give different results"
        )


def _random_outputs(model: Model, *, plain: bool) -> npt.NDArray[np.float64]:
    interpreter = Interpreter(model, every_tensor=plain)
    random = np.random.default_rng(0)
    outputs = []
    for _ in range(_BATCHES):
        interpreter.run([_random_values(random, detail) for detail in interpreter.inputs])
        for values, detail in zip(interpreter.results(), interpreter.outputs, strict=True):
            outputs.append(_real(values, detail).ravel())
    return np.concatenate(outputs)


def _random_values(random: np.random.Generator, detail: Mapping[str, Any]) -> Any:
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return random.normal(size=detail["shape"]).astype(dtype)
    return random.integers(-100, 100, size=detail["shape"]).astype(dtype)


def _real(values: Any, detail: Mapping[str, Any]) -> Any:
    scale, zero_point = detail["quantization"]
    return (values.astype(np.float64) - zero_point) * scale if scale else values.astype(np.float64)
