"""Split by devices: all calls of a device are one value, and arms are compared by the ranks of devices.

Calls of one device are correlated: a hot device is slow in all of them. So the sample size is the number of
devices, and the interval is the exact Hodges-Lehmann interval. It is made anytime-valid by alpha spending:
each time the number of windows has doubled, one look is taken at the windows so far, and the k-th look spends
6 / (pi k)**2 of alpha, which adds up to alpha. Between two looks the interval does not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.arm_counts import ArmCounts, ArmWindow, quantile_bucket, total
from edgeq.experiment.confidence_sequence import NOTHING, Interval
from edgeq.experiment.hodges_lehmann import shift_interval
from edgeq.experiment.metrics import Metric, MetricKind, arm_value, bounds

Array = NDArray[np.float64]

_FIRST = 2  # windows per device, on average, before the first look
_TIMED = 20  # calls that a device needs before its latency counts


def metrics(
    windows: Sequence[ArmWindow], arms: Mapping[str, ArmCounts], *, devices: int, alpha: float
) -> tuple[Metric, ...]:
    """Return each metric with its anytime-valid interval of level 1 - alpha.

    Args:
        windows: in their order of arrival, each of the arm that its device was assigned to.
        devices: number of devices in the experiment.
    """
    look = look_at(len(windows), devices)
    parts: dict[str, dict[str, list[ArmCounts]]] = {"a": {}, "b": {}}
    for window in windows[: windows_of(look, devices)]:
        parts[window.arm].setdefault(window.device, []).append(window.counts)
    sums = {arm: [total(of_device) for of_device in each.values()] for arm, each in parts.items()}
    return tuple(_metric(kind, sums, arms, look, alpha) for kind in MetricKind)


def look_at(windows: int, devices: int) -> int:
    """Return the number of the last look when there are so many windows; 0 before the first look."""
    rounds = windows / (_FIRST * devices)
    return 0 if rounds < 1 else 1 + math.floor(math.log2(rounds))


def windows_of(look: int, devices: int) -> int:
    """Return how many windows a look includes."""
    return _FIRST * devices * 2 ** (look - 1) if look else 0


def alpha_of(look: int, alpha: float) -> float:
    """Return the part of alpha that a look spends; all looks together spend alpha."""
    return alpha * 6 / (math.pi * look) ** 2


def _metric(
    kind: MetricKind,
    sums: Mapping[str, Sequence[ArmCounts]],
    arms: Mapping[str, ArmCounts],
    look: int,
    alpha: float,
) -> Metric:
    values = {arm: _values(kind, parts) for arm, parts in sums.items()}
    interval: Interval = NOTHING
    estimate = None
    if look:
        interval, estimate = shift_interval(values["a"], values["b"], alpha=alpha_of(look, alpha))
    if kind.quantile is not None:  # latencies are compared as logarithms
        estimate = None if estimate is None else math.exp(estimate)
        interval = interval if interval.is_open else _exp(interval)
    return Metric(
        kind=kind,
        interval=interval,
        estimate=estimate,
        units=len(values["a"][0]) + len(values["b"][0]),
        unit="devices",
        a=arm_value(kind, arms["a"]),
        b=arm_value(kind, arms["b"]),
    )


def _values(kind: MetricKind, parts: Sequence[ArmCounts]) -> tuple[Array, Array]:
    """Return lower and upper bounds of each device's value, shape (devices,) each."""
    values: list[tuple[float, float]] = []
    for part in parts:
        if kind.quantile is not None:
            if part.timed >= _TIMED:
                step = math.log((1 + part.accuracy) / (1 - part.accuracy))
                bucket = quantile_bucket(part.latency, kind.quantile)
                values.append(((bucket - 1) * step, bucket * step))
            continue
        low, high, count = bounds(kind, part)
        if count:
            # A rate of n calls is known to within one call. Without that, ties at 0 would shrink the
            # interval.
            grain = 0.0 if kind is MetricKind.CONFIDENCE else 1 / count
            values.append((low - grain, high + grain))
    pairs = np.array(values, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _exp(interval: Interval) -> Interval:
    return Interval(low=math.exp(interval.low), high=math.exp(interval.high))
