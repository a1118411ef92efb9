"""The job `latency`: time models in turns on this machine, each time in a fresh interpreter."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance, Step
from edgeq_converters.worker.protocol import HostLatency, LatencyJob, LatencyResult

_SLICE_NS = 20_000_000
_FEWEST, _MOST = 5, 200
_WARM_UP = 3


def run(job: LatencyJob, step: Step) -> LatencyResult:
    """Do the job.

    Raises:
        ConverterError: EQ303 a model does not run.
    """
    advance = step("measure latency in turns", len(job.models) * job.rounds)
    return LatencyResult(
        latencies=tuple(measure(job.models, rounds=job.rounds, seed=job.seed, advance=advance))
    )


def measure(models: Sequence[Path], *, rounds: int, seed: int, advance: Advance) -> list[HostLatency]:
    """Return the latency of each model.

    In every round each model is loaded again and runs for about 20 ms, in a random order of that round. A
    disturbance of the machine therefore hits all models, and no model keeps a lucky memory layout.

    Raises:
        ConverterError: EQ303 a model does not run.
    """
    shuffle = random.Random(seed)  # noqa: S311 - the order of measurements is not a secret
    contents = [Model.read(path) for path in models]
    gathered: list[list[list[int]]] = [[] for _ in models]
    for _ in range(rounds):
        order = list(range(len(models)))
        shuffle.shuffle(order)
        for i in order:
            gathered[i].append(_slice(contents[i], seed=seed))
            advance(1)
    return [_summary(each) for each in gathered]


def _slice(model: Model, *, seed: int) -> list[int]:
    interpreter = Interpreter(model)
    generator = np.random.default_rng(seed)
    interpreter.run(
        [
            _filling(generator, tuple(detail["shape"]), np.dtype(detail["dtype"]))
            for detail in interpreter.inputs
        ]
    )
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


def _summary(rounds: Sequence[Sequence[int]]) -> HostLatency:
    medians = sorted(median(each) for each in rounds)
    return HostLatency(
        p50_ns=round(median(medians)),
        p95_ns=round(median(float(np.percentile(each, 95)) for each in rounds)),
        low_ns=round(float(np.percentile(medians, 25))),
        high_ns=round(float(np.percentile(medians, 75))),
        runs=sum(len(each) for each in rounds),
        rounds=len(rounds),
    )
