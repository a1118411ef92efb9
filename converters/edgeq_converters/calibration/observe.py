"""Calibration: run the float model over the representative dataset and count every activation's values."""

from __future__ import annotations

from typing import Any

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
    watched = [
        (index, tflite_file.tensor_name(tensor), Observer())
        for index, tensor in tflite_file.activations(model.parsed)
    ]
    interpreter = Interpreter(model, every_tensor=True)
    for count in run_batches(interpreter, samples, model.inputs):
        for index, _, observer in watched:
            values = _values(interpreter, index)
            if values is not None:
                observer.add(samples_first(values, size=samples.batch, count=count))
        advance(count)
    histograms = {name: observer.histogram() for _, name, observer in watched}
    for name, histogram in histograms.items():
        if histogram.invalid:
            raise ConverterError(
                "EQ309",
                model.subject,
                f"the float model gives {histogram.invalid} NaN or infinite values in tensor {name!r}",
                hint="check the model on the calibration data in float first",
            )
        if max(-histogram.minimum, histogram.maximum) >= LARGEST:  # kernels clamp infinity to this
            raise overflow(model.subject, name, histogram.minimum, histogram.maximum)
    return histograms


def _values(interpreter: Interpreter, index: int) -> npt.NDArray[Any] | None:
    try:
        return interpreter.tensor(index)
    except ValueError:
        return None  # a loop's output that nothing reads is not allocated, and needs no range
