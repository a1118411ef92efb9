"""The job `latency`: time models in turns on this machine, each time in a fresh interpreter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeq_converters.graph import timing
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance, Step
from edgeq_converters.worker.protocol import HostLatency, LatencyJob, LatencyResult


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
    """Return the latency of each model, as `gather` times it.

    Raises:
        ConverterError: EQ303 a model does not run.
    """
    contents = [Model.read(path) for path in models]
    inputs = [None] * len(contents)
    return [_summary(each) for each in gather(contents, inputs, rounds=rounds, seed=seed, advance=advance)]


def gather(
    models: Sequence[Model],
    inputs: Sequence[Sequence[Any] | None],
    *,
    rounds: int,
    seed: int,
    advance: Advance,
) -> list[list[list[int]]]:
    """Return, for each model, the times of its inferences in ns, grouped by round.

    In every round each model is loaded again and runs for about 20 ms, in a random order of that round. A
    disturbance of the machine therefore hits all models, and no model keeps a lucky memory layout.

    Args:
        inputs: one array for each input of a model; None for random values.

    Raises:
        ConverterError: EQ303 a model does not run.
    """
    shuffle = random.Random(seed)  # noqa: S311 - the order of measurements is not a secret
    gathered: list[list[list[int]]] = [[] for _ in models]
    for _ in range(rounds):
        order = list(range(len(models)))
        shuffle.shuffle(order)
        for i in order:
            gathered[i].append(timing.times_ns(models[i], rows=inputs[i], seed=seed))
            advance(1)
    return gathered


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
