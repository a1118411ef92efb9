"""A split by calls: both arms on each device; a block of both is one value (see `blocks`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeq.experiment.arm_counts import Part, Seen
from edgeq.experiment.blocks import blocks
from edgeq.experiment.confidence_sequence import mean_interval
from edgeq.experiment.figures import Figure, Metric, bounds, plain
from edgeq.experiment.ratios import ratio_interval


def metrics(seen: Sequence[Seen], arms: Mapping[str, Part], *, alpha: float) -> tuple[Metric, ...]:
    """Return each figure with its interval; each is right at all looks with 1 - alpha."""
    return tuple(_metric(figure, seen, arms, alpha) for figure in Figure)


def _metric(figure: Figure, seen: Sequence[Seen], arms: Mapping[str, Part], alpha: float) -> Metric:
    if figure.quantile is not None:
        timed = blocks(seen, lambda part: part.timed)
        interval, estimate, units = ratio_interval(timed, figure.quantile, alpha=alpha)
    else:
        found = blocks(seen, lambda part: bounds(figure, part)[2])
        a, b = ([bounds(figure, getattr(block, side)) for block in found] for side in ("a", "b"))
        low = np.array([one[0] - other[1] for one, other in zip(b, a, strict=True)])
        high = np.array([one[1] - other[0] for one, other in zip(b, a, strict=True)])
        interval = mean_interval(low, high, span=2.0, alpha=alpha).within(-1.0, 1.0)
        estimate, units = float((low + high).mean() / 2) if len(low) else None, len(low)
    return Metric(
        figure=figure,
        interval=interval,
        estimate=estimate,
        units=units,
        unit="blocks",
        a=plain(figure, arms["a"]),
        b=plain(figure, arms["b"]),
    )
