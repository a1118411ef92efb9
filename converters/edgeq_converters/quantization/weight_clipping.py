"""Ranges for weights of few bits: each channel cut where its squared error on the grid is least."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph import tflite_file

_RATIOS = tuple(1 - 0.025 * step for step in range(29))


def clipped(
    data: bytes, *, bits: int, kinds: Collection[str], subject: str, keep: Collection[str] = ()
) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Return {weight tensor: {min, max}}, one range an output channel, all other dimensions one.

    With 4 bits an outlier costs its whole channel most of the 15 levels; a search over clip ratios is
    MQBench's MSEObserver for weights (arXiv 2111.03759), worth 8 points of top-1 there at 4 bits and
    nothing at 8.

    Args:
        kinds: names of the operations; of each the second input is the weight, output channels first.
        keep: operations that are left out, by the name of their first output.
    """
    model = tflite_file.parse(data, subject=subject)
    graph = model.subgraphs[0]
    found: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for operator in graph.operators:
        name = tflite_file.tensor_name(graph.tensors[operator.outputs[0]])
        if tflite_file.op_name(model, operator) not in kinds or name in keep:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        if tflite_file.is_constant(model, tensor) and tflite_file.type_name(tensor) == "FLOAT32":
            weights = _constant(model, tensor)
            limit = limits(weights.reshape(len(weights), -1), bits=bits)
            shaped = limit.reshape(-1, *(1,) * (weights.ndim - 1)).astype(np.float32)
            found[tflite_file.tensor_name(tensor)] = {"min": -shaped, "max": shaped}
    return found


def _constant(model: Any, tensor: Any) -> npt.NDArray[np.float32]:
    raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes()
    return np.frombuffer(raw, np.float32).reshape([int(size) for size in tensor.shape])


def limits(rows: npt.NDArray[np.float32], *, bits: int) -> npt.NDArray[np.float64]:
    """Return the limit of each row's range whose squared error on a symmetric grid is least."""
    highest = 2 ** (bits - 1) - 1
    widest = np.maximum(np.abs(rows).max(axis=1), 1e-9).astype(np.float64)
    best, least = widest.copy(), np.full(len(rows), np.inf)
    for ratio in _RATIOS:
        scale = (widest * ratio / highest)[:, None]
        kept = np.clip(np.rint(rows / scale), -highest, highest) * scale
        error = np.square(kept - rows).sum(axis=1)
        better = error < least
        best, least = np.where(better, widest * ratio, best), np.where(better, error, least)
    return np.asarray(best, np.float64)
