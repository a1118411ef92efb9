"""Figures of a pruned and an unpruned .tflite: compressed size, latency, accuracy, and zero weights."""

from __future__ import annotations

import statistics
import time
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, to_real
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.interpreter import Interpreter, run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import ignore
from edgeq_converters.training.common.training_data import HeldOutData
from edgeq_converters.training.pruning.report import LatencyQuartiles, WeightCounts

_ROUNDS = 12
_ROUND_NS = 40_000_000  # of each model in each round


def compressed_bytes(data: bytes) -> int:
    """Return the file's size compressed with zlib level 9."""
    return len(zlib.compress(data, 9))


def latencies_ns(models: list[Model]) -> list[LatencyQuartiles]:
    """Return each model's median latency, and its quartiles over the rounds.

    The models take turns in rounds of 40 ms, so that a slowdown of the machine hits all of them. One thread,
    LiteRT's default delegates, inputs of zeros.
    """
    runs = [_prepared(model) for model in models]
    medians: list[list[float]] = [[] for _ in models]
    for number in range(_ROUNDS + 1):
        for into, interpreter in zip(medians, runs, strict=True):
            times: list[int] = []
            while sum(times) < _ROUND_NS or len(times) < 5:
                started = time.perf_counter_ns()
                interpreter.repeat()
                times.append(time.perf_counter_ns() - started)
            if number:  # the first round warms up
                into.append(statistics.median(times))
    latencies = []
    for rounds in medians:
        low, middle, high = statistics.quantiles(rounds, n=4)
        latencies.append(LatencyQuartiles(p50=middle, quartile_low=low, quartile_high=high))
    return latencies


def _prepared(model: Model) -> Interpreter:
    interpreter = Interpreter(model)
    interpreter.run([np.zeros(detail["shape"], detail["dtype"]) for detail in interpreter.inputs])
    return interpreter


def outputs(model: Model, held_out: HeldOutData) -> list[npt.NDArray[Any]]:
    """Return the file's outputs on the held-out samples as real values, samples first."""
    samples = Samples(inputs=model.inputs, arrays=held_out.arrays)
    raw = run_samples(model, samples, advance=ignore)
    return [to_real(array, tensor) for array, tensor in zip(raw, model.outputs, strict=True)]


def weights(model: Model) -> dict[str, npt.NDArray[Any]]:
    """Return {tensor name: values} of the file's constants with two or more dimensions; int4 is unpacked."""
    constants = {}
    for graph in model.parsed.subgraphs:
        for tensor in graph.tensors:
            if tflite_file.is_constant(model.parsed, tensor) and len(_shape(tensor)) > 1:
                array = _array(model.parsed, tensor)
                if array is not None:
                    constants[tflite_file.tensor_name(tensor)] = array
    return constants


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _array(parsed: Any, tensor: Any) -> npt.NDArray[Any] | None:
    raw = np.asarray(parsed.buffers[tensor.buffer].data, np.uint8)
    kind = tflite_file.type_name(tensor)
    if kind == "INT4":
        pairs = np.stack([raw & 0x0F, raw >> 4], axis=-1).ravel()[: int(np.prod(_shape(tensor)))]
        return np.where(pairs > 7, pairs.astype(np.int8) - 16, pairs.astype(np.int8)).reshape(_shape(tensor))
    kinds = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8}
    if kind not in kinds:
        return None
    return raw.view(kinds[kind]).reshape(_shape(tensor))


def weight_counts(model: Model) -> WeightCounts:
    """Return the number of weights in the file, and how many of them are zero."""
    arrays = weights(model).values()
    return WeightCounts(
        weights=sum(array.size for array in arrays),
        zero_weights=sum(int(np.count_nonzero(array == 0)) for array in arrays),
    )


def require_zeros_kept(hub: Model, written: Model) -> int:
    """Check that every zero weight of the float file is exactly zero in the converted file; return how many.

    Args:
        hub: the float .tflite with the pruned weights.
        written: the file of any scheme converted from it.

    Raises:
        ConverterError: EQ308, naming the weights where the quantizer moved a zero.
    """
    ours, theirs = weights(hub), weights(written)
    checked = 0
    for name, array in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != array.shape:
            continue
        pruned = array == 0
        if np.any(other[pruned] != 0):
            raise ConverterError(
                "EQ308",
                written.subject,
                f"the quantizer moved pruned weights of {name!r} away from zero",
                hint="use --scheme float16 or float32",
            )
        checked += int(pruned.sum())
    return checked
