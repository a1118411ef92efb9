"""Rows of a span with its median, and a higher percentile: latencies by model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.report.vector import canvas
from edgeq.report.vector.canvas import INK, SERIES, Drawing
from edgeq.report.vector.scatter import Axis, plain_numbers
from edgeq.report.vector.svg import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One row, in raw units.

    Attributes:
        low, high: the ends of the span.
        chosen: whether it is drawn as the chosen one.
        text: the values in words.
    """

    name: str
    low: float
    median: float
    high: float
    p95: float
    chosen: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Rows from top to bottom."""

    id: str
    title: str
    caption: str
    x: Axis
    spans: tuple[Span, ...]


def spans(chart: Spans) -> Drawing:
    """Draw each span as a bar, its median as a dot (a star for the chosen one), its p95 as a diamond.

    A mark has `data-name`, `data-low`, `data-median`, `data-high` and `data-p95` (raw units).
    """
    height = 90 + 20 * len(chart.spans)
    with canvas.canvas(chart.id, title=chart.title, caption=chart.caption, height=height) as sheet:
        axes = sheet.figure.add_subplot()
        unit = chart.x.unit
        if chart.x.log:
            axes.set_xscale("log")
        for row, span in enumerate(chart.spans):
            axes.plot([span.low / unit, span.high / unit], [row, row], color=INK, linewidth=3, alpha=0.5)
            axes.plot([span.p95 / unit], [row], **_P95)
            (median,) = axes.plot([span.median / unit], [row], **(_CHOSEN if span.chosen else _MEDIAN))
            sheet.mark(
                median,
                span.text,
                name=printable(span.name),
                low=span.low,
                median=span.median,
                high=span.high,
                p95=span.p95,
            )
        names = [canvas.label(span.name) for span in chart.spans]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        if not chart.x.log:
            axes.set_xlim(left=0)
        axes.set_xlabel(chart.x.title)
        axes.grid(visible=True, axis="x")
        plain_numbers(axes.xaxis)
        _legend(axes, any(span.chosen for span in chart.spans))
        return sheet.drawing()


_MEDIAN: dict[str, Any] = {"marker": "o", "markersize": 7, "color": SERIES[0], "markeredgecolor": INK}
_CHOSEN: dict[str, Any] = {"marker": "*", "markersize": 13, "color": SERIES[1], "markeredgecolor": INK}
_P95: dict[str, Any] = {"marker": "D", "markersize": 5, "color": INK, "markerfacecolor": "none"}


def _legend(axes: Any, with_chosen: bool) -> None:
    styles = [("median", _MEDIAN), ("p95", _P95), ("chosen", _CHOSEN)]
    handles = [
        axes.plot([], [], linestyle="none", label=name, **style)[0]
        for name, style in styles
        if with_chosen or style is not _CHOSEN
    ]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0, handletextpad=0.2
    )
