"""Figures that compare models: signal-to-quantization-noise ratio and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
T = TypeVar("T")


# A smaller difference in SQNR counts as equal.
SAME_DB = 0.1
# Medians of one model in one session differ by about this share.
SAME_LATENCY = 0.03
# On the same samples, a difference of up to 3 is never significant (McNemar's test, 5 %).
_SAME_SAMPLES = 3
# However few samples there are, a model that is worse by more than this is not as good.
_SAME_SHARE = 0.005
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion(Generic[T]):
    """One figure by which candidates are compared.

    Attributes:
        value: of a candidate; larger is better, and -infinity stands for a figure that is missing.
        same: whether two values count as equal.
    """

    value: Callable[[T], float]
    same: Callable[[float, float], bool]


def equal(one: float, other: float) -> bool:
    """Compare figures without noise, such as sizes."""
    return one == other


def same_db(one: float, other: float) -> bool:
    """Return whether two SQNRs count as equal."""
    return one == other or abs(one - other) <= SAME_DB + _ROUNDING


def same_latency(one: float, other: float) -> bool:
    """Return whether two latencies of one session, or their negatives, count as equal."""
    return one == other or abs(one - other) <= SAME_LATENCY * min(abs(one), abs(other))


def same_share(one: float, other: float, *, samples: int) -> bool:
    """Return whether two shares of right answers on the same samples count as equal."""
    limit = min(_SAME_SAMPLES / max(samples, 1), _SAME_SHARE)
    return one == other or abs(one - other) <= limit + _ROUNDING


def in_order(
    candidates: Iterable[T], criteria: Sequence[Criterion[T]], *, size: Callable[[T], tuple[float, str]]
) -> list[T]:
    """Return candidates, best first.

    The first criterion decides; among the candidates that are as good as the best in it, the next one does.

    Args:
        size: (bytes, name) of a candidate: what is equal in every criterion goes by size, then by name.
    """
    left, ordered = sorted(candidates, key=size), list[T]()
    while left:
        tied = left
        for criterion in criteria:
            values = [criterion.value(each) for each in tied]
            best = max(values)
            tied = [each for each, value in zip(tied, values, strict=True) if criterion.same(best, value)]
        ordered.append(tied[0])
        left.remove(tied[0])
    return ordered


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two powers; infinity without noise, -infinity without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def sqnr_db(outputs: Sequence[Array], references: Sequence[Array]) -> float:
    """Return the signal-to-quantization-noise ratio over all outputs, in dB; infinity when equal.

    10 log10(sum reference^2 / sum (reference - output)^2), summed in float64.

    Args:
        outputs: real values of the model that is judged, one array per output.
        references: the float model's values, in the same order and shapes.
    """
    exact = [np.asarray(reference, np.float64) for reference in references]
    signal = sum(float(np.sum(np.square(reference))) for reference in exact)
    noise = sum(
        float(np.sum(np.square(reference - np.asarray(output, np.float64))))
        for output, reference in zip(outputs, exact, strict=True)
    )
    return decibels(signal, noise)


def softmax(scores: Array) -> Array:
    """Return class probabilities along the last axis: exp(score) / sum exp(score), without overflow."""
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Array = grown / grown.sum(axis=-1, keepdims=True)
    return probabilities
