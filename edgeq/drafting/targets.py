"""Targets that a number of samples cannot show, and targets that no run measures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Limits, Task
from edgeq.units import limit_key
from edgeq_converters.intervals import samples_needed, smallest_drop

_ROUNDING = 1e-9
_DROPS = ("accuracy_drop_max", "accuracy_drop_relative_max")
_OF_CLASSES = (*_DROPS, "accuracy_min", "class_drop_max", "ece_max")


def beyond_reach(
    limits: Limits, *, samples: int, labels: npt.NDArray[Any] | None, task: Task | None, where: str
) -> Iterator[str]:
    """Yield the limits that the evaluation data cannot show, each with the number of samples that can.

    What it can show is judged at best: for a float model that has every sample right.

    Args:
        samples: of the data, or of a slice; at least one.
        labels: of these samples; None without labels.
        task: None where it is not known.
        where: follows a limit in the text: ` in slice night`.
    """
    stated = limits.stated()
    named = [limit_key(name) for name in _OF_CLASSES if name in stated]
    if task not in (None, Task.CLASSIFICATION):
        if named:
            yield f"{', '.join(named)}{where}: no run can measure it: the task is {task}"
        return
    if labels is None:
        if named:
            yield f"{', '.join(named)}{where}: no run can measure it: the evaluation data has no labels `y`"
        return
    for name in _DROPS:
        if name in stated:
            yield from _unshown(f"{name} {_percent(stated[name])}{where}", stated[name], samples)
    if limits.accuracy_min is not None:
        yield from _without_a_wrong_answer(limits.accuracy_min, samples, where)
    if limits.class_drop_max is not None and labels.dtype.kind in "iu" and labels.ndim == 1:
        classes, counts = np.unique(labels, return_counts=True)
        place = int(counts.argmin())
        subject = f"class_drop_max {_percent(limits.class_drop_max)}{where}, class {classes[place]}"
        yield from _unshown(subject, limits.class_drop_max, int(counts[place]))


def _without_a_wrong_answer(least: float, samples: int, where: str) -> Iterator[str]:
    """Yield that one wrong answer misses an accuracy; an accuracy of 1 says so itself."""
    if not 1 - 1 / samples < least < 1:
        return
    needed = math.ceil((1 - _ROUNDING) / (1 - least))
    yield (
        f"accuracy_min {_percent(least)}{where}: one wrong answer of {samples} is an accuracy of "
        f"{_percent(1 - 1 / samples)}; {needed} samples allow one"
    )


def _unshown(subject: str, limit: float, samples: int) -> Iterator[str]:
    """Yield that a drop beyond the limit may be chance, where that many samples cannot show it."""
    smallest, needed = smallest_drop(samples, samples), samples_needed(limit)
    if smallest is not None and smallest <= limit + _ROUNDING:
        return
    shown = "no drop" if smallest is None else f"no drop below {_percent(smallest)}"
    enough = "" if needed is None else f"; {needed} samples would show it"
    yield f"{subject}: {samples} samples show {shown}{enough}"


def _percent(share: float) -> str:
    """Format a share; unlike in tables, close shares must differ: `99.99 %`."""
    return f"{100 * share:.4g} %"
