"""Scatter plot of named points: kinds differ in shape, labels do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.report.vector import canvas
from edgeq.report.vector.canvas import FAINT, INK, NOTHING, SERIES, Canvas, Drawing
from edgeq.report.vector.svg import printable


class PointKind(StrEnum):
    """How a point stands among the others."""

    CHOSEN = "chosen"
    FRONT = "on the front"
    DOMINATED = "dominated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis.

    Attributes:
        title: with the unit.
        unit: how much of the raw unit one of the drawn unit is: 1024 where bytes are drawn as KiB.
        log: whether it is logarithmic.
    """

    title: str
    unit: float = 1.0
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A named point.

    Attributes:
        x, y: in raw units.
        text: its values in words.
    """

    name: str
    x: float
    y: float
    kind: PointKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Points of two figures, joined along the front."""

    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]


_ORDER = (PointKind.CHOSEN, PointKind.FRONT, PointKind.DOMINATED)
_STYLES: dict[PointKind, dict[str, Any]] = {
    PointKind.CHOSEN: {"marker": "*", "markersize": 15, "color": SERIES[1], "markeredgecolor": INK},
    PointKind.FRONT: {"marker": "o", "markersize": 8, "color": SERIES[0], "markeredgecolor": INK},
    PointKind.DOMINATED: {"marker": "x", "markersize": 7, "color": FAINT, "markeredgewidth": 1.6},
}
_HEIGHT = 300
# Where a label may stand: offset from its point, and which of its sides is there.
_PLACES = (
    (0, 8, "center", "bottom"),
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (0, -8, "center", "top"),
    (7, 6, "left", "bottom"),
    (-7, 6, "right", "bottom"),
    (7, -6, "left", "top"),
    (-7, -6, "right", "top"),
)


def scatter(chart: Scatter) -> Drawing:
    """Draw points: a star for the chosen one, dots on the front, crosses for the others.

    A mark has `data-name`, `data-kind`, `data-x` and `data-y` (raw units).
    """
    with canvas.canvas(chart.id, title=chart.title, caption=chart.caption, height=_HEIGHT) as sheet:
        axes = sheet.figure.add_subplot()
        _prepare(axes, chart)
        front = sorted((each for each in chart.points if each.kind is not PointKind.DOMINATED), key=_x)
        if len(front) > 1:
            line = [(each.x / chart.x.unit, each.y / chart.y.unit) for each in front]
            axes.plot(*zip(*line, strict=True), color=SERIES[0], linewidth=1.5, linestyle=":", zorder=1)
        for point in sorted(chart.points, key=lambda each: -_ORDER.index(each.kind)):
            (artist,) = axes.plot(
                [point.x / chart.x.unit],
                [point.y / chart.y.unit],
                linestyle=NOTHING,
                zorder=3,
                **_STYLES[point.kind],
            )
            values = {"name": printable(point.name), "kind": point.kind.value}
            sheet.mark(artist, point.text, **values, x=point.x, y=point.y)
        _legend(axes, {each.kind for each in chart.points})
        _place_labels(sheet, axes, chart)
        return sheet.drawing()


def _x(point: Point) -> float:
    return point.x


def _prepare(axes: Any, chart: Scatter) -> None:
    axes.set_xlabel(chart.x.title)
    axes.set_ylabel(chart.y.title)
    if chart.x.log:
        axes.set_xscale("log")
    if chart.y.log:
        axes.set_yscale("log")
    axes.margins(0.16)
    axes.grid(visible=True)
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)


def plain_numbers(axis: Any) -> None:
    """Label an axis with whole figures: no common offset or power of ten beside it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _at: f"{value:.6g}"))


def _legend(axes: Any, kinds: set[PointKind]) -> None:
    handles = []
    for kind in _ORDER:
        if kind in kinds:
            handles += axes.plot([], [], linestyle=NOTHING, label=kind.value, **_STYLES[kind])
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0, handletextpad=0.2
    )


def _place_labels(sheet: Canvas, axes: Any, chart: Scatter) -> None:
    """Write each point's name where it is free, the chosen one's first; leave out what finds no place."""
    sheet.settle()
    frame = sheet.figure.bbox
    taken = [_box_of(axes, chart, point) for point in chart.points]
    ordered = sorted(chart.points, key=lambda each: _ORDER.index(each.kind))
    missing = 0
    for point in ordered:
        placed = _place(axes, chart, point, taken, frame)
        if placed is None:
            missing += 1
        else:
            taken.append(placed)
    if missing:
        sheet.say(f"Names without room are left out ({missing} of {len(ordered)}); the table lists all.")


def _place(axes: Any, chart: Scatter, point: Point, taken: Sequence[Any], frame: Any) -> Any | None:
    """Write a point's name at the first free place, and return its box; None without one."""
    bold = "bold" if point.kind is PointKind.CHOSEN else "normal"
    at = (point.x / chart.x.unit, point.y / chart.y.unit)
    for right, up, horizontal, vertical in _PLACES:
        text = axes.annotate(
            canvas.label(point.name),
            at,
            xytext=(right, up),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=10,
            fontweight=bold,
            zorder=4,
        )
        box = text.get_window_extent()
        wide = box.x0 >= frame.x0 and box.x1 <= frame.x1
        high = box.y0 >= axes.bbox.y0 and box.y1 <= axes.bbox.y1
        if wide and high and not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    return None


def _box_of(axes: Any, chart: Scatter, point: Point) -> Any:
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((point.x / chart.x.unit, point.y / chart.y.unit))
    half = 0.4 * _STYLES[point.kind]["markersize"]
    return Bbox.from_extents(x - half, y - half, x + half, y + half)
