"""Measure the noise along the graph: each operation's output in the int8 model against the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.interpreter import Interpreter, batches
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import decibels
from edgeq_converters.sensitivity.spreads import channel_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNoise:
    """The difference between both models in one tensor.

    Attributes:
        sqnr_db: infinity without noise; None if the int8 model has no tensor of that name.
        channel_ratio: largest over median of the float channels' largest magnitudes, along the last axis.
    """

    sqnr_db: float | None
    channel_ratio: float | None


def measure_tensors(
    floating: Model, int8: Model, names: Sequence[str], samples: Samples
) -> Mapping[str, TensorNoise]:
    """Run both models with all tensors kept, and compare the named ones."""
    float_run, int8_run = _Run(floating), _Run(int8)
    signal = dict.fromkeys(names, 0.0)
    noise = dict.fromkeys(names, 0.0)
    peaks: dict[str, npt.NDArray[np.float64]] = {}
    # The int8 model's inputs may be integers too.
    both = zip(batches(samples, samples.inputs), batches(samples, int8.inputs), strict=True)
    for number, ((rows, count), (integer_rows, _)) in enumerate(both):
        if samples.begins_at(number):
            float_run.interpreter.reset()
            int8_run.interpreter.reset()
        float_run.interpreter.run(rows)
        int8_run.interpreter.run(integer_rows)
        for name in names:
            if name not in float_run.tensors:
                continue
            real = float_run.values(name, samples.batch, count)
            peak = np.abs(real.reshape(-1, real.shape[-1]) if real.ndim else real.reshape(1, 1)).max(axis=0)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
            if name in int8_run.tensors:
                signal[name] += float(np.sum(np.square(real)))
                difference = real - int8_run.values(name, samples.batch, count)
                noise[name] += float(np.sum(np.square(difference)))
    return {
        name: TensorNoise(
            sqnr_db=(
                decibels(signal[name], noise[name])
                if name in float_run.tensors and name in int8_run.tensors
                else None
            ),
            channel_ratio=channel_ratio(peaks[name]) if name in peaks else None,
        )
        for name in names
    }


class _Run:
    """A model whose tensors can all be read after a run."""

    def __init__(self, model: Model) -> None:
        self.interpreter = Interpreter(model, every_tensor=True)
        self.tensors: dict[str, tuple[int, Any]] = {}
        for operator in model.graph.operators:
            # A DEQUANTIZE repeats a tensor under a similar name; the first of a name is the operation's own.
            for index in operator.outputs:
                tensor = model.graph.tensors[int(index)]
                self.tensors.setdefault(_plain(tflite_file.tensor_name(tensor)), (int(index), tensor))

    def values(self, name: str, batch: int, count: int) -> npt.NDArray[np.float64]:
        """Return a tensor's real values for the first `count` samples of the batch."""
        index, tensor = self.tensors[name]
        raw = self.interpreter.tensor(index)
        if raw.ndim and count < batch and len(raw) == batch:
            raw = raw[:count]
        pair = tflite_file.quantization(tensor)
        if pair is None or raw.dtype.kind == "f":
            return raw.astype(np.float64)
        return pair[0] * (raw.astype(np.float64) - pair[1])


def _plain(name: str) -> str:
    return name.removesuffix("_quantized").removesuffix("_dequant")
