"""Heat map of counts by row and column: a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.report.vector import canvas
from edgeq.report.vector.canvas import FAINT, INK, LINE, SERIES, Drawing
from edgeq.report.vector.svg import printable

MOST_NAMES = 30
"""More rows than these cannot be read on a page."""
_MOST_NUMBERS = 12
# Text in the colour of the page stays readable on a fill that is no denser than this.
_DENSEST = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A square matrix of counts.

    Attributes:
        names: of the rows and of the columns, in one order; at most `MOST_NAMES`.
        counts: one tuple for each row.
        texts: of each cell, the values in words.
        rows, columns: what they are.
    """

    id: str
    title: str
    caption: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    rows: str
    columns: str


def heat(chart: Heat) -> Drawing:
    """Draw a cell for each pair; its density is the share of its row.

    A mark has `data-row`, `data-column` (from 0) and `data-count`.
    """
    count = len(chart.names)
    with canvas.canvas(chart.id, title=chart.title, caption=chart.caption, height=390) as sheet:
        axes = sheet.figure.add_subplot()
        for row, counts in enumerate(chart.counts):
            total = sum(counts)
            for column, value in enumerate(counts):
                share = value / total if total else 0.0
                patch = _cell(axes, row, column, share)
                sheet.mark(patch, chart.texts[row][column], row=row, column=column, count=value)
                if count <= _MOST_NUMBERS:
                    _number(axes, row, column, value)
        names = [printable(name, longest=14) for name in chart.names]
        steep = count > 6 or max(map(len, names)) > 5
        axes.set_xticks(range(count), names, rotation=90 if steep else 0)
        axes.set_yticks(range(count), names)
        if count > _MOST_NUMBERS:
            axes.tick_params(labelsize=8)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlabel(chart.columns)
        axes.set_ylabel(chart.rows)
        axes.tick_params(length=0)
        return sheet.drawing()


def _cell(axes: Any, row: int, column: int, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return axes.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5),
            1,
            1,
            facecolor=(SERIES[0], _DENSEST * share),
            edgecolor=LINE,
            linewidth=0.5,
        )
    )


def _number(axes: Any, row: int, column: int, value: int) -> None:
    # Right answers lie on the diagonal; elsewhere a zero says nothing.
    if value or row == column:
        axes.text(
            column, row, str(value), ha="center", va="center", fontsize=9, color=INK if value else FAINT
        )
