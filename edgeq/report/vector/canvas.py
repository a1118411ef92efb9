"""The sheet of a vector figure: matplotlib with fixed settings, and marks that carry their values."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from edgeq.errors import MissingExtra
from edgeq.report.vector.svg import Mark, finished, printable

WIDTH = 400
"""Width of every figure in its own units: on a phone, text of 11 units has about 10 pixels."""

# Colours that stand for those of the page: `svg.COLOURS` says which.
INK = "#000001"
FAINT = "#000002"
LINE = "#000003"
SERIES = ("#000011", "#000012", "#000013")
NOTHING = "none"

# One unit of a figure is one point, and matplotlib's default is 72 of them to an inch.
_PER_INCH = 72.0
_LONGEST_LABEL = 28
_SETTINGS: dict[str, Any] = {
    "figure.dpi": _PER_INCH,
    "savefig.dpi": "figure",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": NOTHING,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.color": LINE,
    "ytick.labelcolor": FAINT,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawn figure.

    Attributes:
        id: unique on its page.
        caption: what it shows, in words.
        svg: the `<svg>` element. Each mark is a group with a `<title>` and its values in `data-` attributes.
    """

    id: str
    title: str
    caption: str
    svg: str


@dataclass(kw_only=True)
class Canvas:
    """A figure while it is drawn."""

    id: str
    title: str
    caption: str
    figure: Any
    marks: list[Mark] = field(default_factory=list)

    def mark(self, artist: Any, text: str, **values: float | str) -> None:
        """Give a mark its values: `text` for people, `values` for `data-` attributes."""
        name = f"{self.id}-mark-{len(self.marks)}"
        artist.set_gid(name)
        self.marks.append(Mark(id=name, text=printable(text), values=values))

    def say(self, more: str) -> None:
        """Add a sentence to the caption."""
        self.caption = f"{self.caption} {more}"

    def settle(self) -> None:
        """Arrange the axes once; what is added later does not move them, and has its place."""
        engine = self.figure.get_layout_engine()
        if engine is not None:
            engine.execute(self.figure)
            self.figure.set_layout_engine(None)  # saving would arrange them twice more

    def drawing(self) -> Drawing:
        """Return the figure as SVG."""
        self.settle()
        stream = io.StringIO()
        # Without a date and with a fixed salt (below), the same values give the same text.
        self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        title, caption = printable(self.title), printable(self.caption)
        svg = finished(stream.getvalue(), self.marks, id=self.id, title=title, caption=caption)
        return Drawing(id=self.id, title=title, caption=caption, svg=svg)


def require_matplotlib() -> Any:
    """Return the module matplotlib.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.backends.backend_svg
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtra(
            "vector figures", f"{error.name} is not installed", hint="run `pip install 'edgeq[dashboard]'`"
        ) from error
    return matplotlib


@contextmanager
def canvas(id: str, *, title: str, caption: str, height: float) -> Iterator[Canvas]:
    """Yield an empty sheet; a user's settings of matplotlib neither apply nor change.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name may have letters that matplotlib's font lacks. The browser draws the text, not matplotlib.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": id})
        figure = matplotlib.figure.Figure(
            figsize=(WIDTH / _PER_INCH, height / _PER_INCH), layout="constrained"
        )
        matplotlib.backends.backend_svg.FigureCanvasSVG(figure)
        yield Canvas(id=id, title=title, caption=caption, figure=figure)


def label(text: str) -> str:
    """Return a name from elsewhere as the short text of a label."""
    return printable(text, longest=_LONGEST_LABEL)
