"""Split by calls: both arms run on each device, and a block of both arms is one value (see `Block`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeq.experiment.arm_counts import ArmCounts, ArmWindow, blocks
from edgeq.experiment.confidence_sequence import mean_interval
from edgeq.experiment.metrics import Metric, MetricKind, arm_value, bounds
from edgeq.experiment.ratios import ratio_interval


def metrics(
    windows: Sequence[ArmWindow], arms: Mapping[str, ArmCounts], *, alpha: float
) -> tuple[Metric, ...]:
    """Return each metric with its anytime-valid interval of level 1 - alpha."""
    return tuple(_metric(kind, windows, arms, alpha) for kind in MetricKind)


def _metric(
    kind: MetricKind, windows: Sequence[ArmWindow], arms: Mapping[str, ArmCounts], alpha: float
) -> Metric:
    if kind.quantile is not None:
        timed = blocks(windows, lambda counts: counts.timed)
        interval, estimate, units = ratio_interval(timed, kind.quantile, alpha=alpha)
    else:
        complete = blocks(windows, lambda counts: bounds(kind, counts)[2])
        a, b = ([bounds(kind, getattr(block, side)) for block in complete] for side in ("a", "b"))
        low = np.array([of_b[0] - of_a[1] for of_b, of_a in zip(b, a, strict=True)])
        high = np.array([of_b[1] - of_a[0] for of_b, of_a in zip(b, a, strict=True)])
        interval = mean_interval(low, high, span=2.0, alpha=alpha).within(-1.0, 1.0)
        estimate, units = float((low + high).mean() / 2) if len(low) else None, len(low)
    return Metric(
        kind=kind,
        interval=interval,
        estimate=estimate,
        units=units,
        unit="blocks",
        a=arm_value(kind, arms["a"]),
        b=arm_value(kind, arms["b"]),
    )
