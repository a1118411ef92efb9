"""The report as frozen values: sentences, tables and plots, without markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


def utc_now() -> datetime:
    """Return the current time in UTC, the default for a page's `created`."""
    return datetime.now(tz=UTC)


class Level(StrEnum):
    """Severity of a verdict; the page also states it in words, never by colour alone."""

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
    """A table of text cells.

    Attributes:
        numeric: indices of numeric columns, which are aligned to the right.
        note: how to read the table.
    """

    id: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot: plotly's `data` and `layout`, without colours, which depend on the page's theme.

    Attributes:
        caption: what the plot shows, in words; also its text for screen readers.
    """

    id: str
    title: str
    caption: str
    data: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """All content of the page, in its order."""

    title: str
    created: str
    verdicts: tuple[VerdictLine, ...]
    variants: Table | None
    pareto: Figure | None
    devices: Table | None
    latency: Figure | None
    field: Table | None = None
    streams: Table | None
    drift: tuple[Figure, ...]
    provenance: Table

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All plots, in the page's order."""
        first = tuple(figure for figure in (self.pareto, self.latency) if figure is not None)
        return first + self.drift
