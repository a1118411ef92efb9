"""Latency on this machine: models in turns, each time in a fresh interpreter, medians over the rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeq_converters.graph import inference
from edgeq_converters.progress import Advance

ROUNDS = 15
_SLICE_NS = 20_000_000
_FEWEST, _MOST = 5, 200
_WARM_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLatency:
    """One model's latency on one thread.

    Attributes:
        p50_ns, p95_ns: medians over the rounds of the round's own percentiles, so that a disturbed round
            does not count.
        low_ns, high_ns: quartiles of the rounds' medians.
    """

    p50_ns: int
    p95_ns: int
    low_ns: int
    high_ns: int
    runs: int
    rounds: int


def measure(models: Sequence[Path], *, rounds: int, seed: int, advance: Advance) -> list[HostLatency]:
    """Return the latency of each model.

    In every round each model runs once for about 20 ms, in a random order of the round's own, loaded anew:
    what disturbs the machine meets all of them, and no model keeps a lucky place in memory.

    Raises:
        ConverterError: EQ303 a model does not run.
    """
    shuffle = random.Random(seed)  # noqa: S311 - an order of measurements, no secret
    contents = [path.read_bytes() for path in models]
    gathered: list[list[list[int]]] = [[] for _ in models]
    for _ in range(rounds):
        order = list(range(len(models)))
        shuffle.shuffle(order)
        for i in order:
            gathered[i].append(_slice(contents[i], subject=str(models[i]), seed=seed))
            advance(1)
    return [_summary(each) for each in gathered]


def _slice(data: bytes, *, subject: str, seed: int) -> list[int]:
    interpreter = inference.open_interpreter(data, subject=subject)
    generator = np.random.default_rng(seed)
    rows, sources = [], []
    for detail in interpreter.get_input_details():
        rows.append(_filling(generator, tuple(detail["shape"]), np.dtype(detail["dtype"])))
        sources.append(detail["index"])
    inference.invoke(interpreter, sources, rows, subject=subject)
    for _ in range(_WARM_UP):
        interpreter.invoke()
    began = time.perf_counter_ns()
    interpreter.invoke()
    once = max(time.perf_counter_ns() - began, 1)
    taken = []
    for _ in range(min(max(_SLICE_NS // once, _FEWEST), _MOST)):
        began = time.perf_counter_ns()
        interpreter.invoke()
        taken.append(time.perf_counter_ns() - began)
    return taken


def _filling(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    # Indices into a table must stay small; for quantized values any are right.
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


def to_dicts(found: Sequence[HostLatency]) -> list[dict[str, int]]:
    """Return the figures as JSON types."""
    return [asdict(each) for each in found]
