"""Calibration: one pass of the float model over representative samples, one histogram a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.calibrators import calibrator_of
from edgeq_converters.calibration.histogram import Histogram, Observer
from edgeq_converters.calibration.qparams import INT8, Grid
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference, tflite_file
from edgeq_converters.progress import Advance

_LARGEST = float(np.finfo(np.float32).max)
Ranges = dict[str, dict[str, Any]]


def observe(data: bytes, samples: Samples, *, subject: str, advance: Advance) -> dict[str, Histogram]:
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
            values = _values(interpreter, index)
            if values is not None:
                observer.add(_samples_first(values, size=len(rows[0]), count=count))
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
        if max(-histogram.minimum, histogram.maximum) >= _LARGEST:  # what kernels clamp infinity to
            raise _overflow(subject, name, histogram.minimum, histogram.maximum)
    return histograms


def _values(interpreter: Any, index: int) -> npt.NDArray[Any] | None:
    try:
        values: npt.NDArray[Any] = interpreter.get_tensor(index)
    except ValueError:
        return None  # what a loop gives and nobody takes is given no memory; it needs no range either
    return values


def _samples_first(values: npt.NDArray[Any], *, size: int, count: int) -> npt.NDArray[Any]:
    # A tensor that does not start with the batch (a transposed one, one number) is one sample's as a whole;
    # where the last batch was filled up, its filling is counted there, as it cannot be told apart.
    if values.ndim == 0 or len(values) != size:
        return values[None]
    return values[:count]


def ranges(
    data: bytes, histograms: Mapping[str, Histogram], *, calibrator: str, subject: str, grid: Grid = INT8
) -> Ranges:
    """Return {tensor: {min, max}} as float32 arrays with the tensor's rank, all dimensions one.

    Args:
        calibrator: a name of calibrators.CALIBRATORS, with its parameter after a colon.
        grid: the integers that the activations will become.

    Raises:
        ConverterError: EQ309 where a range is wider than float32 can say.
        ValueError: no such calibrator.
    """
    decide = calibrator_of(calibrator)
    found: Ranges = {}
    for _, tensor in tflite_file.activations(tflite_file.parse(data, subject=subject)):
        name = tflite_file.tensor_name(tensor)
        histogram = histograms[name]
        if histogram.total:
            ones = (1,) * (0 if tensor.shape is None else len(tensor.shape))
            low, high = decide(histogram, grid)
            if high - low > _LARGEST:
                raise _overflow(subject, name, low, high)
            found[name] = {"min": np.full(ones, low, np.float32), "max": np.full(ones, high, np.float32)}
    return found


def _overflow(subject: str, name: str, low: float, high: float) -> ConverterError:
    return ConverterError(
        "EQ309",
        subject,
        f"the values of tensor {name!r} overflow float32",
        got=f"{low:.3g} to {high:.3g}",
        hint="scale the calibration data as the model's training data was",
    )


def learned(data: bytes, given: Iterable[tuple[str, float, float]], *, subject: str) -> Ranges:
    """Return ranges that training learned, in the form of `ranges`.

    Args:
        given: (tensor, low, high).

    Raises:
        ConverterError: EQ318 the model has no such tensor.
    """
    model = tflite_file.parse(data, subject=subject)
    shapes = {tflite_file.tensor_name(tensor): tensor.shape for _, tensor in tflite_file.activations(model)}
    found: Ranges = {}
    for name, low, high in given:
        if name not in shapes:
            raise ConverterError(
                "EQ318",
                subject,
                f"the recipe has a range for {name!r}, and the model has no such tensor",
                hint="convert the model that edgeq tune wrote with the recipe that it wrote beside it",
            )
        ones = (1,) * (0 if shapes[name] is None else len(shapes[name]))
        found[name] = {"min": np.full(ones, low, np.float32), "max": np.full(ones, high, np.float32)}
    return found
