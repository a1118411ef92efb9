"""Whether the runtime computes a file, and alike with its fast kernels and its plain ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference, logits

_SAMPLES = 8
_LEAST_DB = 6.0
"""Of fast against plain kernels at the logits.

Their roundings differ, which gives 20 to 40 dB for sound int8 models; weights read wrongly give about 0 dB.
"""


def require_alike(made: bytes, *, subject: str) -> None:
    """Check that both kinds of kernels compute the file, and nearly the same on random inputs.

    Raises:
        ConverterError: EQ303 it does not run, EQ308 the kernels differ.
    """
    cut = logits.cut(made, subject=subject).data
    results = []
    for plain in (False, True):
        interpreter = inference.open_interpreter(cut, subject=subject, every_tensor=plain)
        random = np.random.default_rng(0)
        details = interpreter.get_input_details()
        outputs = interpreter.get_output_details()
        found = []
        for _ in range(_SAMPLES):
            rows = [_any_values(random, detail) for detail in details]
            inference.invoke(interpreter, [detail["index"] for detail in details], rows, subject=subject)
            found += [_real(interpreter.get_tensor(detail["index"]), detail).ravel() for detail in outputs]
        results.append(np.concatenate(found))
    fast, slow = results
    # A constant output has no signal that noise could be compared with: one percent of it is alike.
    noise = max(float(np.square(fast - slow).mean()), 1e-30)
    signal = max(float(slow.var()), float(np.square(slow).mean()) * 1e-4)
    if signal and 10 * np.log10(signal / noise) < _LEAST_DB:
        raise ConverterError("EQ308", subject, "the runtime's fast and plain kernels give other results")


def _any_values(random: np.random.Generator, detail: Mapping[str, Any]) -> Any:
    kind = np.dtype(detail["dtype"])
    if kind.kind == "f":
        return random.normal(size=detail["shape"]).astype(kind)
    return random.integers(-100, 100, size=detail["shape"]).astype(kind)


def _real(values: Any, detail: Mapping[str, Any]) -> Any:
    scale, zero = detail["quantization"]
    return (values.astype(np.float64) - zero) * scale if scale else values.astype(np.float64)
