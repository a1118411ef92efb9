"""Time a model on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from edgeq_converters.graph.interpreter import Interpreter, KernelSet
from edgeq_converters.graph.model import Model

_SLICE_NS = 20_000_000
_FEWEST, _MOST = 5, 200
_WARM_UP = 3


def ratio(model: Model, others: Sequence[Model], *, rounds: int, seed: int) -> list[float]:
    """Return the latency of each of the others over that of a model: medians of interleaved rounds.

    Raises:
        ConverterError: EQ303 a model does not run.
    """
    gathered: list[list[float]] = [[] for _ in others]
    for _ in range(rounds):
        base = median(times_ns(model, seed=seed))
        for into, other in zip(gathered, others, strict=True):
            into.append(median(times_ns(other, seed=seed)) / base)
    return [median(each) for each in gathered]


def times_ns(
    model: Model,
    *,
    seed: int,
    rows: Sequence[Any] | None = None,
    kernels: KernelSet = KernelSet.DEFAULT,
) -> list[int]:
    """Return the times of single inferences in a fresh interpreter, for about 20 ms.

    Args:
        seed: of the values of the inputs.
        rows: one array for each input in their place.
        kernels: to choose from.

    Raises:
        ConverterError: EQ303 the model does not run.
    """
    interpreter = Interpreter(model, kernels=kernels)
    generator = np.random.default_rng(seed)
    if rows is None:
        rows = [
            _filling(generator, tuple(detail["shape"]), np.dtype(detail["dtype"]))
            for detail in interpreter.inputs
        ]
    interpreter.run(rows)
    for _ in range(_WARM_UP):
        interpreter.repeat()
    began = time.perf_counter_ns()
    interpreter.repeat()
    once = max(time.perf_counter_ns() - began, 1)
    times = []
    for _ in range(min(max(_SLICE_NS // once, _FEWEST), _MOST)):
        interpreter.reset()  # what a state grows to in many runs says nothing about the model's latency
        began = time.perf_counter_ns()
        interpreter.repeat()
        times.append(time.perf_counter_ns() - began)
    return times


def _filling(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    # Indices into a table must stay small; a quantized input takes any value.
    high = 128 if dtype.itemsize == 1 else 2
    return generator.integers(0, high, shape).astype(dtype)
