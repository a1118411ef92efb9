"""Limits for a first blueprint: strict where the evaluation data can show that they hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeq.blueprint import Task
from edgeq_converters.intervals import samples_needed, smallest_drop

USUAL_DROP = 0.01
"""One percentage point of accuracy."""
_HALF_A_POINT = 0.005
_ROUNDING = 1e-9
_SQNR_DB = 20.0
_AGREEMENT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of a draft.

    Attributes:
        key: of `[require]`.
        reason: one sentence for the comment above it.
        shortage: what the evaluation data can show in place of a usual limit; empty where it is large enough.
    """

    key: str
    value: float
    reason: str
    shortage: str = ""


def drop_limit(samples: int) -> float | None:
    """Return the largest drop of accuracy for a draft, 0..1; None where no loss would be shown.

    It is one point, or more where so many samples cannot show one point, in steps of half a point.
    """
    smallest = smallest_drop(samples, samples)
    if smallest is None or smallest >= 1:
        return None
    steps = math.ceil(smallest / _HALF_A_POINT - _ROUNDING)
    return round(max(USUAL_DROP, min(steps * _HALF_A_POINT, 1.0)), 4)


def choose_limit(task: Task | None, *, samples: int, labelled: bool, sequences: bool) -> Limit:
    """Return the limit of accuracy, or of the distance from the float model, that fits a task.

    Args:
        samples: of the evaluation data.
        labelled: whether it has labels.
        sequences: whether the samples depend on each other, so that no interval holds for them.
    """
    if task in (Task.DETECTION, Task.SEGMENTATION):
        what = "boxes" if task is Task.DETECTION else "mask"
        return Limit(
            key="agreement_min",
            value=_AGREEMENT,
            reason=f"Share of the float model's {what}: a first choice.",
        )
    if task is not Task.CLASSIFICATION:
        return _distance(
            "Noise of the outputs against the float model; at 20 dB it is a tenth of the signal."
        )
    if sequences:
        reason = "Samples of one sequence depend on each other: there are no intervals for this limit."
        drop: float | None = USUAL_DROP
    else:
        drop, reason = drop_limit(samples), _shown(samples)
    if drop is None:
        shortage = f"so few samples ({samples}) show no drop of accuracy at all; {reason}"
        return _distance(f"In place of a limit on accuracy: {shortage}", shortage=shortage)
    shortage = reason if drop > USUAL_DROP else ""
    if labelled:
        return Limit(key="accuracy_drop_max", value=drop, reason=reason, shortage=shortage)
    reason = f"Without labels: the share of the float model's classes. {reason}"
    return Limit(key="agreement_min", value=round(1 - drop, 4), reason=reason, shortage=shortage)


def _distance(reason: str, *, shortage: str = "") -> Limit:
    return Limit(key="output_sqnr_db_min", value=_SQNR_DB, reason=reason, shortage=shortage)


def _shown(samples: int) -> str:
    smallest, needed = smallest_drop(samples, samples), samples_needed(USUAL_DROP)
    enough = f"{needed} samples show a drop of 1 point."
    if smallest is None:
        return enough
    shown = f"{samples} samples show a drop of {100 * smallest:.2g} points or more, at best"
    return f"{shown}." if smallest <= USUAL_DROP else f"{shown}; {enough}"
