"""The noise along the graph: each operation's own output in the int8 model against the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import inference, tflite_file
from edgeq_converters.metrics import decibels
from edgeq_converters.sensitivity.spreads import channel_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """What both models gave in one tensor.

    Attributes:
        sqnr_db: infinity without noise; None where the int8 model has no tensor of that name.
        channel_ratio: largest over median of the float channels' largest magnitudes, along the last axis.
    """

    sqnr_db: float | None
    channel_ratio: float | None


def along(
    float_data: bytes, int8_data: bytes, names: Sequence[str], samples: Samples, *, subject: str
) -> Mapping[str, Along]:
    """Run both models with all tensors kept and compare the named ones."""
    one, other = _Kept(float_data, subject), _Kept(int8_data, subject)
    signal = dict.fromkeys(names, 0.0)
    noise = dict.fromkeys(names, 0.0)
    peaks: dict[str, npt.NDArray[np.float64]] = {}
    shared = [name for name in names if name in one.tensors and name in other.tensors]
    for rows, count in inference.batches(samples, samples.inputs):
        one.run(rows)
        other.run(rows)
        for name in names:
            if name not in one.tensors:
                continue
            real = one.values(name, len(rows[0]), count)
            peak = np.abs(real.reshape(-1, real.shape[-1]) if real.ndim else real.reshape(1, 1)).max(axis=0)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
            if name in other.tensors:
                signal[name] += float(np.sum(np.square(real)))
                noise[name] += float(np.sum(np.square(real - other.values(name, len(rows[0]), count))))
    return {
        name: Along(
            sqnr_db=decibels(signal[name], noise[name]) if name in shared else None,
            channel_ratio=channel_ratio(peaks[name]) if name in peaks else None,
        )
        for name in names
    }


class _Kept:
    """A model that keeps every tensor after a run."""

    def __init__(self, data: bytes, subject: str) -> None:
        self._subject = subject
        self._interpreter = inference.open_interpreter(data, subject=subject, every_tensor=True)
        self._sources = [detail["index"] for detail in self._interpreter.get_input_details()]
        model = tflite_file.parse(data, subject=subject)
        self.tensors: dict[str, tuple[int, Any]] = {}
        graph = model.subgraphs[0]
        for operator in graph.operators:
            # DEQUANTIZE repeats what was there; the first tensor of a name is the operation's own.
            for index in operator.outputs:
                tensor = graph.tensors[int(index)]
                self.tensors.setdefault(_plain(tflite_file.tensor_name(tensor)), (int(index), tensor))

    def run(self, rows: Sequence[npt.NDArray[Any]]) -> None:
        inference.invoke(self._interpreter, self._sources, rows, subject=self._subject)

    def values(self, name: str, batch: int, count: int) -> npt.NDArray[np.float64]:
        """Return the tensor's real values of the samples that count."""
        index, tensor = self.tensors[name]
        raw = np.asarray(self._interpreter.get_tensor(index))
        if raw.ndim and count < batch and len(raw) == batch:
            raw = raw[:count]
        pair = tflite_file.quantization(tensor)
        if pair is None or raw.dtype.kind == "f":
            return raw.astype(np.float64)
        return pair[0] * (raw.astype(np.float64) - pair[1])


def _plain(name: str) -> str:
    return name.removesuffix("_quantized").removesuffix("_dequant")
