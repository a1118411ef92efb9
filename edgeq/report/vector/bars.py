"""Horizontal bars from zero, each with its interval: changes by class, by slice or by corruption."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.report.vector import canvas
from edgeq.report.vector.canvas import INK, SERIES, Drawing
from edgeq.report.vector.scatter import Axis, plain_numbers
from edgeq.report.vector.svg import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar.

    Attributes:
        value: in raw units.
        interval: the ends of the value's interval; None without one.
        text: the values in words.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Bars from top to bottom."""

    id: str
    title: str
    caption: str
    x: Axis
    bars: tuple[Bar, ...]


def bars(chart: Bars) -> Drawing:
    """Draw bars from zero to the right, or to the left where a value is below zero.

    A mark has `data-name`, `data-value` and, with an interval, `data-low` and `data-high` (raw units).
    """
    height = 70 + 20 * len(chart.bars)
    with canvas.canvas(chart.id, title=chart.title, caption=chart.caption, height=height) as sheet:
        axes = sheet.figure.add_subplot()
        unit = chart.x.unit
        for row, bar in enumerate(chart.bars):
            below = bar.value < 0
            (patch,) = axes.barh(
                [row],
                [bar.value / unit],
                height=0.6,
                color=SERIES[1] if below else SERIES[0],
                alpha=0.75,
                edgecolor=INK,
                linewidth=0.5,
            )
            values: dict[str, float | str] = {"name": printable(bar.name), "value": bar.value}
            if bar.interval is not None:
                low, high = bar.interval
                axes.plot([low / unit, high / unit], [row, row], color=INK, linewidth=1.2, marker="|")
                values |= {"low": low, "high": high}
            sheet.mark(patch, bar.text, **values)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(chart.bars)), [canvas.label(bar.name) for bar in chart.bars])
        axes.set_ylim(len(chart.bars) - 0.5, -0.5)
        axes.set_xlabel(chart.x.title)
        axes.grid(visible=True, axis="x")
        plain_numbers(axes.xaxis)
        return sheet.drawing()
