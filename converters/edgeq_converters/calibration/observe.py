"""Calibration: run the float model over the representative dataset and count every activation's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.histogram import Histogram, Observer
from edgeq_converters.calibration.ranges import LARGEST, overflow
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.interpreter import Interpreter, run_batches, samples_first
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance


def observe(model: Model, samples: Samples, *, advance: Advance) -> dict[str, Histogram]:
    """Return a histogram of every activation of the float model, by tensor name.

    Args:
        advance: called with the number of samples of each batch.

    Raises:
        ConverterError: EQ309 naming the first tensor with NaN or infinity.
    """
    batches = -(-len(samples) // samples.batch)
    return observe_groups(model, samples, np.zeros(batches, np.intp), advance=advance)[0]


def observe_groups(
    model: Model, samples: Samples, groups: npt.NDArray[np.intp], *, advance: Advance
) -> tuple[dict[str, Histogram], ...]:
    """Return the histograms of every activation, by tensor name, for each group of batches.

    Args:
        groups: the number of each batch's group, from 0.
        advance: called with the number of samples of each batch.

    Raises:
        ConverterError: EQ309 naming the first tensor with NaN or infinity.
    """
    watched = tflite_file.activations(model.parsed)
    observers = [[Observer() for _ in watched] for _ in range(int(groups.max()) + 1)]
    interpreter = Interpreter(model, every_tensor=True)
    for count, group in zip(run_batches(interpreter, samples, model.inputs), groups, strict=True):
        for (index, _), observer in zip(watched, observers[group], strict=True):
            values = _values(interpreter, index)
            if values is not None:
                observer.add(samples_first(values, size=samples.batch, count=count))
        advance(count)
    names = [tflite_file.tensor_name(tensor) for _, tensor in watched]
    results = tuple(
        {name: observer.histogram() for name, observer in zip(names, each, strict=True)} for each in observers
    )
    _require_finite(model, results)
    return results


def _require_finite(model: Model, groups: Sequence[Mapping[str, Histogram]]) -> None:
    for name in groups[0]:
        parts = [group[name] for group in groups]
        invalid = sum(part.invalid for part in parts)
        if invalid:
            raise ConverterError(
                "EQ309",
                model.subject,
                f"the float model gives {invalid} NaN or infinite values in tensor {name!r}",
                hint="check the model on the calibration data in float first",
            )
        low, high = min(part.minimum for part in parts), max(part.maximum for part in parts)
        if max(-low, high) >= LARGEST:  # kernels clamp infinity to this
            raise overflow(model.subject, name, low, high)


def _values(interpreter: Interpreter, index: int) -> npt.NDArray[Any] | None:
    try:
        return interpreter.tensor(index)
    except ValueError:
        return None  # a loop's output that nothing reads is not allocated, and needs no range
