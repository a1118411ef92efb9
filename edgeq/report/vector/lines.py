"""Lines in small panels: accuracy by severity, and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.report.vector import canvas
from edgeq.report.vector.canvas import FAINT, SERIES, Canvas, Drawing
from edgeq.report.vector.scatter import Axis, plain_numbers
from edgeq.report.vector.svg import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a panel.

    Attributes:
        name: of the series; the same in each panel.
        points: (x, y) in raw units.
        texts: of each point, the values in words.
        weights: of each point, 0..1: the area of its marker; empty for markers of one size.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    texts: tuple[str, ...]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesPanel:
    """Lines that share their axes; `title` may be empty where there is one panel."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Panels with common axes.

    Attributes:
        panels: at least one; their lines are at most three series.
        diagonal: whether to draw the line y = x, on which a calibrated model lies.
        y_range: of the drawn unit; None fits the values.
    """

    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    panels: tuple[LinesPanel, ...]
    diagonal: bool = False
    y_range: tuple[float, float] | None = None


# Width of a marker with weight 0, and how much wider it is with weight 1.
_SMALLEST = 2.5
_LARGER = 9.0
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": SERIES[0], "marker": "o", "linestyle": "-"},
    {"color": SERIES[1], "marker": "s", "linestyle": "--"},
    {"color": SERIES[2], "marker": "^", "linestyle": ":"},
)


def lines(chart: Lines) -> Drawing:
    """Draw the lines of each panel; a series has the same colour, marker and dashes in all of them.

    A mark has `data-panel`, `data-series`, `data-x` and `data-y` (raw units); `data-weight` where it has one.
    """
    columns = 1 if len(chart.panels) == 1 else 2
    rows = -(-len(chart.panels) // columns)
    height = 300 if columns == 1 else 60 + 130 * rows
    series = list(dict.fromkeys(line.name for panel in chart.panels for line in panel.lines))
    with canvas.canvas(chart.id, title=chart.title, caption=chart.caption, height=height) as sheet:
        grid = sheet.figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index >= len(chart.panels):
                axes.set_visible(False)
                continue
            _draw_panel(sheet, axes, chart, chart.panels[index], series)
            if index + columns >= len(chart.panels):  # the last panel of its column
                axes.tick_params(labelbottom=True)
        handles = []
        for name, style in zip(series, _STYLES, strict=False):
            handles += grid[0][0].plot([], [], label=canvas.label(name), **style)
        sheet.figure.legend(handles=handles, loc="outside upper left", ncols=len(series))
        sheet.figure.supxlabel(chart.x.title, fontsize=11)
        sheet.figure.supylabel(chart.y.title, fontsize=11)
        return sheet.drawing()


def _draw_panel(sheet: Canvas, axes: Any, chart: Lines, panel: LinesPanel, series: list[str]) -> None:
    if chart.diagonal:
        axes.plot([0, 1 / chart.x.unit], [0, 1 / chart.y.unit], color=FAINT, linewidth=1, linestyle=":")
    for line in panel.lines:
        style = {**_STYLES[series.index(line.name)], "markersize": 4.5}
        drawn = [(x / chart.x.unit, y / chart.y.unit) for x, y in line.points]
        axes.plot(*zip(*drawn, strict=True), **{**style, "marker": ""}, linewidth=1.3)
        for index, ((x, y), text) in enumerate(zip(line.points, line.texts, strict=True)):
            values: dict[str, float | str] = {"panel": printable(panel.title), "series": printable(line.name)}
            values |= {"x": x, "y": y}
            if line.weights:
                values["weight"] = line.weights[index]
                style["markersize"] = _SMALLEST + _LARGER * line.weights[index] ** 0.5
            (mark,) = axes.plot([drawn[index][0]], [drawn[index][1]], **{**style, "linestyle": "none"})
            sheet.mark(mark, text, **values)
    if panel.title:
        axes.set_title(canvas.label(panel.title), loc="left", fontsize=10)
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    axes.grid(visible=True)
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
