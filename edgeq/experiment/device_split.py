"""A split across devices: the device is the unit, and its calls, however many, are one value.

Calls of one device are alike: a device in the sun is slow in all of them. So what decides is how many
devices there are, and the interval is that of the devices' ranks (`ranks`). Its looks are spaced: each time
the number of windows has doubled one look is taken at what was there by then, and the k-th look spends 6 /
(pi k)**2 of alpha; all of them together spend alpha. Between two looks the interval stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.experiment.arm_counts import Part, Seen, bucket_at, total
from edgeq.experiment.confidence_sequence import NOTHING, Interval
from edgeq.experiment.figures import Figure, Metric, bounds, plain
from edgeq.experiment.hodges_lehmann import shift_interval

Array = NDArray[np.float64]

_FIRST = 2  # windows a device, on average, before the first look
_TIMED = 20  # calls before a device has a latency


def metrics(
    seen: Sequence[Seen], arms: Mapping[str, Part], *, devices: int, alpha: float
) -> tuple[Metric, ...]:
    """Return each figure with its interval; each is right at all looks with 1 - alpha.

    Args:
        seen: the windows, in the order of their arrival, each of its device's arm.
        devices: how many the experiment has.
    """
    look = look_at(len(seen), devices)
    parts: dict[str, dict[str, list[Part]]] = {"a": {}, "b": {}}
    for one in seen[: windows_of(look, devices)]:
        parts[one.arm].setdefault(one.device, []).append(one.part)
    sums = {arm: [total(of_device) for of_device in each.values()] for arm, each in parts.items()}
    return tuple(_metric(figure, sums, arms, look, alpha) for figure in Figure)


def look_at(windows: int, devices: int) -> int:
    """Return the number of the last look at so many windows; 0: none yet."""
    rounds = windows / (_FIRST * devices)
    return 0 if rounds < 1 else 1 + math.floor(math.log2(rounds))


def windows_of(look: int, devices: int) -> int:
    """Return how many windows a look is at."""
    return _FIRST * devices * 2 ** (look - 1) if look else 0


def alpha_of(look: int, alpha: float) -> float:
    """Return what a look spends; over all of them that adds up to alpha."""
    return alpha * 6 / (math.pi * look) ** 2


def _metric(
    figure: Figure, sums: Mapping[str, Sequence[Part]], arms: Mapping[str, Part], look: int, alpha: float
) -> Metric:
    values = {arm: _values(figure, parts) for arm, parts in sums.items()}
    interval: Interval = NOTHING
    estimate = None
    if look:
        interval, estimate = shift_interval(values["a"], values["b"], alpha=alpha_of(look, alpha))
    if figure.quantile is not None:  # they were compared as logarithms
        estimate = None if estimate is None else math.exp(estimate)
        interval = interval if interval.says_nothing else _exp(interval)
    return Metric(
        figure=figure,
        interval=interval,
        estimate=estimate,
        units=len(values["a"][0]) + len(values["b"][0]),
        unit="devices",
        a=plain(figure, arms["a"]),
        b=plain(figure, arms["b"]),
    )


def _values(figure: Figure, parts: Sequence[Part]) -> tuple[Array, Array]:
    found: list[tuple[float, float]] = []
    for part in parts:
        if figure.quantile is not None:
            if part.timed >= _TIMED:
                step = math.log((1 + part.accuracy) / (1 - part.accuracy))
                bucket = bucket_at(part.latency, figure.quantile)
                found.append(((bucket - 1) * step, bucket * step))
            continue
        low, high, count = bounds(figure, part)
        if count:
            # A share of n calls is known to one call; where most devices have none, ranks would say 0.
            grain = 0.0 if figure is Figure.CONFIDENCE else 1 / count
            found.append((low - grain, high + grain))
    pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _exp(interval: Interval) -> Interval:
    return Interval(low=math.exp(interval.low), high=math.exp(interval.high))
