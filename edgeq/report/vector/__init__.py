"""Vector figures: values in, SVG text out; drawn by matplotlib, in the colours of the page around them."""

from __future__ import annotations

from edgeq.report.vector.bars import Bar, Bars, bars
from edgeq.report.vector.canvas import Drawing, require_matplotlib
from edgeq.report.vector.heat import Heat, heat
from edgeq.report.vector.lines import Line, Lines, LinesPanel, lines
from edgeq.report.vector.scatter import Axis, Point, PointKind, Scatter, scatter
from edgeq.report.vector.spans import Span, Spans, spans

__all__ = [
    "Axis",
    "Bar",
    "Bars",
    "Drawing",
    "Heat",
    "Line",
    "Lines",
    "LinesPanel",
    "Point",
    "PointKind",
    "Scatter",
    "Span",
    "Spans",
    "bars",
    "heat",
    "lines",
    "require_matplotlib",
    "scatter",
    "spans",
]
