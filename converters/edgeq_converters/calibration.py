"""Calibration: one pass of the float model over representative samples, one histogram a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq_converters import inference, tflite_file
from edgeq_converters.calibrators import CALIBRATORS
from edgeq_converters.errors import ConverterError
from edgeq_converters.histogram import Histogram, Observer
from edgeq_converters.samples import Samples

Ranges = dict[str, dict[str, Any]]


def observe(
    data: bytes, samples: Samples, *, subject: str, advance: inference.Advance
) -> dict[str, Histogram]:
    """Return a histogram for every activation of the float model, by tensor name.

    Raises:
        ConverterError: EQ309 naming the first tensor with NaN or infinity.
    """
    model = tflite_file.parse(data, subject=subject)
    inputs, _ = tflite_file.inputs_and_outputs(model)
    watched = [
        (index, tflite_file.tensor_name(tensor), Observer())
        for index, tensor in tflite_file.activations(model)
    ]
    interpreter = inference.open_interpreter(data, subject=subject, every_tensor=True)
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    for rows, count in inference.batches(samples, inputs):
        inference.invoke(interpreter, sources, rows, subject=subject)
        for index, _, observer in watched:
            values = interpreter.get_tensor(index)
            # Only where the batch was filled up is the first dimension cut: the filling must not be counted.
            whole = len(rows[0]) == count or values.ndim == 0 or len(values) != len(rows[0])
            observer.add(values if whole else values[:count])
        advance(count)
    histograms = {name: observer.histogram() for _, name, observer in watched}
    for name, histogram in histograms.items():
        if histogram.invalid:
            raise ConverterError(
                "EQ309",
                subject,
                f"the float model gives {histogram.invalid} NaN or infinite values in tensor {name!r}",
                hint="check the model on the calibration data in float first",
            )
    return histograms


def ranges(data: bytes, histograms: Mapping[str, Histogram], *, calibrator: str, subject: str) -> Ranges:
    """Return {tensor: {min, max}} as float32 arrays with the tensor's rank, all dimensions one.

    Raises:
        ConverterError: EQ309 where a range is wider than float32 can say.
    """
    decide = CALIBRATORS[calibrator]
    found: Ranges = {}
    for _, tensor in tflite_file.activations(tflite_file.parse(data, subject=subject)):
        name = tflite_file.tensor_name(tensor)
        histogram = histograms[name]
        if histogram.total:
            ones = (1,) * (0 if tensor.shape is None else len(tensor.shape))
            low, high = decide(histogram)
            if high - low > float(np.finfo(np.float32).max):
                raise ConverterError(
                    "EQ309",
                    subject,
                    f"the values of tensor {name!r} overflow float32",
                    got=f"{low:.3g} to {high:.3g}",
                    hint="scale the calibration data as the model's training data was",
                )
            found[name] = {"min": np.full(ones, low, np.float32), "max": np.full(ones, high, np.float32)}
    return found
