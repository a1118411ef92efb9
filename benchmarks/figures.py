"""Figures of a benchmark: the measured value, the goal, and whether the value meets it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

_COMPARE = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of a benchmark's JSON.

    Attributes:
        peer: the same figure of the peer; None without one.
        reach: the goal, a comparison and a number: `>=33.0`.
    """

    name: str
    value: float
    unit: str
    peer: float | None
    reach: str
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        sign = next(sign for sign in _COMPARE if self.reach.startswith(sign))
        object.__setattr__(self, "holds", bool(_COMPARE[sign](self.value, float(self.reach[len(sign) :]))))


def last_line(figures: list[Figure]) -> str:
    """Return the last line of a benchmark's output."""
    return json.dumps({"schema": "edgeq.benchmark/1", "figures": [asdict(figure) for figure in figures]})
