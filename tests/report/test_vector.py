"""Vector figures: values in marks, text that stays text, colours of the page, the same text every time."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib as mpl
import pytest

from edgeq.errors import MissingExtra
from edgeq.report.vector import (
    Axis,
    Bar,
    Bars,
    Drawing,
    Heat,
    Line,
    Lines,
    LinesPanel,
    Point,
    PointKind,
    Scatter,
    Span,
    Spans,
    bars,
    heat,
    lines,
    scatter,
    spans,
)

SVG = "{http://www.w3.org/2000/svg}"
PERCENT = Axis(title="accuracy (%)", unit=0.01)


def elements(drawing: Drawing) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawing.svg).iter())  # noqa: S314 - the test drew it


def marks(drawing: Drawing) -> list[dict[str, str]]:
    return [
        {name.removeprefix("data-"): value for name, value in each.attrib.items() if name.startswith("data-")}
        for each in elements(drawing)
        if each.get("id", "").startswith(f"{drawing.id}-mark-")
    ]


def texts(drawing: Drawing) -> list[str]:
    return [each.text or "" for each in elements(drawing) if each.tag == f"{SVG}text"]


def points(*places: tuple[str, float, float, PointKind]) -> Drawing:
    return scatter(
        Scatter(
            id="points",
            title="Accuracy against size",
            caption="Up and left is better.",
            x=Axis(title="size (KiB)", unit=1024),
            y=PERCENT,
            points=tuple(
                Point(name=name, x=x, y=y, kind=kind, text=f"{name} at {x:.0f} and {y:.2f}")
                for name, x, y, kind in places
            ),
        )
    )


def three_points() -> Drawing:
    return points(
        ("a", 1024, 0.9, PointKind.CHOSEN),
        ("b", 4096, 0.95, PointKind.FRONT),
        ("c", 8192, 0.91, PointKind.DOMINATED),
    )


def changes() -> Drawing:
    rows = (
        Bar(name="yes", value=0.02, interval=(-0.01, 0.05), text="yes: +2.0 points"),
        Bar(name="no", value=-0.04, text="no: -4.0 points"),
    )
    return bars(Bars(id="changes", title="Recall", caption="By class.", x=PERCENT, bars=rows))


def confusion() -> Drawing:
    return heat(
        Heat(
            id="confusion",
            title="Confusion",
            caption="Rows are true.",
            names=("yes", "no"),
            counts=((8, 2), (0, 5)),
            texts=(("yes as yes: 8", "yes as no: 2"), ("no as yes: 0", "no as no: 5")),
            rows="true class",
            columns="predicted class",
        )
    )


def severities() -> Drawing:
    def line(name: str, loss: float) -> Line:
        places = tuple((float(severity), 0.9 - loss * severity) for severity in (1, 3, 5))
        return Line(name=name, points=places, texts=tuple(f"{name} at {x:.0f}" for x, _ in places))

    panels = tuple(
        LinesPanel(title=title, lines=(line("float", 0.01), line("int8", 0.02)))
        for title in ("noise", "blur", "contrast")
    )
    return lines(
        Lines(
            id="severities",
            title="By severity",
            caption="Dashed is int8.",
            x=Axis(title="severity"),
            y=PERCENT,
            panels=panels,
        )
    )


def latencies() -> Drawing:
    rows = tuple(
        Span(name=name, low=900, median=1000, high=1200, p95=1900, chosen=name == "b", text=f"{name}: 1 us")
        for name in ("a", "b")
    )
    axis = Axis(title="latency (us)", unit=1000)
    return spans(Spans(id="latencies", title="Latency", caption="Dots are medians.", x=axis, spans=rows))


ALL = pytest.mark.parametrize("draw", [three_points, changes, confusion, severities, latencies])


@ALL
def test_a_figure_is_safe_to_put_into_a_page(draw: Callable[[], Drawing]) -> None:
    drawing = draw()
    root, *inner = elements(drawing)
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"{drawing.title}. {drawing.caption}"
    assert not [each.tag for each in inner if each.tag in (f"{SVG}style", f"{SVG}metadata", f"{SVG}script")]
    ids = [each.get("id") for each in (root, *inner) if each.get("id")]
    assert len(ids) == len(set(ids))
    referenced = re.findall(r'(?:url\(|href=")#([^)"]+)', drawing.svg)
    assert set(referenced) <= set(ids)


@ALL
def test_every_colour_is_one_of_the_page(draw: Callable[[], Drawing]) -> None:
    drawing = draw()
    styles = "; ".join(each.get("style", "") for each in elements(drawing))
    assert "#0000" not in drawing.svg  # a colour that stands for one of the page
    assert set(re.findall(r"(?:fill|stroke): ([^;]+)", styles)) <= {
        "none",
        "currentColor",
        "var(--faint, currentColor)",
        "var(--line, #8c959f)",
        "var(--series-1, #0969da)",
        "var(--series-2, #bc4c00)",
        "var(--series-3, #1a7f37)",
    }
    assert "currentColor" in styles


@ALL
def test_the_same_values_give_the_same_text_whatever_the_settings(draw: Callable[[], Drawing]) -> None:
    first = draw()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "xtick.major.size": 20}):
        before = dict(mpl.rcParams)
        assert draw() == first
        assert dict(mpl.rcParams) == before


@ALL
def test_every_mark_has_its_values_in_words_and_the_figure_lists_them(draw: Callable[[], Drawing]) -> None:
    drawing = draw()
    titles = [each.text or "" for each in elements(drawing) if each.tag == f"{SVG}title"]
    assert len(titles) == len(marks(drawing)) > 0
    (listed,) = [each.text for each in elements(drawing) if each.tag == f"{SVG}desc"]
    assert set(titles) == set((listed or "").split("; "))


def test_points_have_raw_values_and_the_kind() -> None:
    drawn = {mark["name"]: mark for mark in marks(three_points())}
    assert drawn["a"] == {"name": "a", "kind": "chosen", "x": "1024", "y": "0.9"}
    assert drawn["c"]["kind"] == "dominated"
    assert {"a", "b", "c", "chosen", "on the front", "dominated"} <= set(texts(three_points()))


def test_a_mark_is_drawn_where_its_values_are() -> None:
    drawing = three_points()
    places = {}
    for each in elements(drawing):
        if each.get("id", "").startswith("points-mark-"):
            use = next(inner for inner in each.iter() if inner.tag == f"{SVG}use")
            places[each.get("data-name")] = (float(use.get("x", "")), float(use.get("y", "")))
    (ax, ay), (bx, by), (cx, cy) = places["a"], places["b"], places["c"]
    assert (cx - ax) / (bx - ax) == pytest.approx((8192 - 1024) / (4096 - 1024), abs=0.01)
    assert (cy - ay) / (by - ay) == pytest.approx((0.91 - 0.9) / (0.95 - 0.9), abs=0.01)


def test_names_that_have_no_room_are_left_out_and_counted() -> None:
    crowd = [(f"candidate number {at}", 1000.0 + at, 0.9, PointKind.DOMINATED) for at in range(30)]
    drawing = points(("the best", 1015, 0.9, PointKind.CHOSEN), *crowd)
    shown = [text for text in texts(drawing) if text.startswith("candidate")]
    assert 0 < len(shown) < 30
    assert "the best" in texts(drawing)
    assert f"left out ({30 - len(shown)} of 31)" in drawing.caption
    assert len(marks(drawing)) == 31


def test_a_name_stays_text_beside_markup_and_formulas() -> None:
    name = "<b>$x_1$ \u202e\x1b\ufffe語"
    drawing = points((name, 1, 1, PointKind.FRONT), ("other", 2, 2, PointKind.FRONT))
    assert marks(drawing)[0]["name"] == "<b>$x_1$ \\u202e\\x1b\ufffd語"
    assert "<b>$x_1$ \\u202e\\x1b\ufffd語" in texts(drawing)


def test_bars_have_their_intervals() -> None:
    assert marks(changes()) == [
        {"name": "yes", "value": "0.02", "low": "-0.01", "high": "0.05"},
        {"name": "no", "value": "-0.04"},
    ]


def test_cells_have_their_counts_and_are_as_dense_as_their_share() -> None:
    drawing = confusion()
    assert [(mark["row"], mark["column"], mark["count"]) for mark in marks(drawing)] == [
        ("0", "0", "8"),
        ("0", "1", "2"),
        ("1", "0", "0"),
        ("1", "1", "5"),
    ]
    cells = [each for each in elements(drawing) if each.get("id", "").startswith("confusion-mark-")]
    styles = [next(iter(each.findall(f"{SVG}path"))).get("style", "") for each in cells]
    density = [re.findall(r"fill: none|fill-opacity: ([\d.]+)", style) for style in styles]
    assert density == [["0.48"], ["0.12"], [""], ["0.6"]]
    assert {"8", "2", "5"} <= set(texts(drawing))


def test_lines_have_their_panel_and_series() -> None:
    drawn = marks(severities())
    assert len(drawn) == 3 * 2 * 3
    assert drawn[5] == {"panel": "noise", "series": "int8", "x": "5.0", "y": "0.8"}


def test_spans_have_their_percentiles() -> None:
    assert marks(latencies())[1] == {
        "name": "b",
        "low": "900",
        "median": "1000",
        "high": "1200",
        "p95": "1900",
    }


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match="matplotlib is not installed") as caught:
        three_points()
    assert "edgeq[dashboard]" in str(caught.value.hint)
