"""What a report shows, as frozen values: no markup, no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How a verdict is meant; the page says it in words too, never by colour alone."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """One sentence at the top of the page."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        numeric: indices of the columns that hold figures, aligned to the right.
        note: what to know to read it.
    """

    id: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot: plotly's own `data` and `layout`, without colours that depend on the page's theme.

    Attributes:
        caption: what is seen, in words, also for those who cannot see it.
    """

    id: str
    title: str
    caption: str
    data: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """Everything on the page, in its order."""

    title: str
    created: str
    verdicts: tuple[VerdictLine, ...]
    variants: Table | None
    pareto: Figure | None
    devices: Table | None
    latency: Figure | None
    streams: Table | None
    drift: tuple[Figure, ...]
    provenance: Table

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Return all plots in the page's order."""
        first = tuple(figure for figure in (self.pareto, self.latency) if figure is not None)
        return first + self.drift
