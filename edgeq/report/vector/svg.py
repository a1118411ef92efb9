"""Turn matplotlib's SVG into an element for a page: its colours, no foreign ids, values on every mark."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeq.text import one_line

COLOURS: Mapping[str, str] = {
    "#000001": "currentColor",
    "#000002": "var(--faint, currentColor)",
    "#000003": "var(--line, #8c959f)",
    "#000011": "var(--series-1, #0969da)",
    "#000012": "var(--series-2, #bc4c00)",
    "#000013": "var(--series-3, #1a7f37)",
}
"""Placeholder -> the page's colour, and the one for a page without such variables."""

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"'DejaVu Sans'(?:, sans-serif)?")
_COORDINATES = ("d", "x", "y", "width", "height", "transform", "points")
# Characters that XML 1.0 cannot contain in any form, besides the controls that `one_line` escapes.
_NOT_XML = re.compile("[\ufffe\uffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark of a figure: a group with this id.

    Attributes:
        text: its values in words.
        values: for `data-` attributes, in raw units.
    """

    id: str
    text: str
    values: Mapping[str, float | str] = field(default_factory=dict)


def printable(text: str, longest: int | None = None) -> str:
    """Return a text from elsewhere as one line that SVG can contain."""
    return _NOT_XML.sub("\ufffd", one_line(text, longest))


def finished(text: str, marks: Sequence[Mark], *, id: str, title: str, caption: str) -> str:
    """Return the `<svg>` element for a page.

    Args:
        text: the document that matplotlib wrote, with the ids of the marks.
    """
    root = ElementTree.fromstring(text)  # noqa: S314 - matplotlib wrote it
    _drop(root)
    by_id = {mark.id: mark for mark in marks}
    referenced = set(_references(root))
    for element in root.iter():
        _clean(element, kept=referenced | set(by_id))
        mark = by_id.get(element.get("id", ""))
        if mark is not None:
            _annotate(element, mark)
    _set_root(root, marks, id=id, title=title, caption=caption)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element) -> None:
    # The style sheet has a rule for `*`: it would apply to the whole page.
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)


def _references(root: ElementTree.Element) -> list[str]:
    names = [element.get(_HREF, "").removeprefix("#") for element in root.iter()]
    return names + [
        name
        for element in root.iter()
        for value in element.attrib.values()
        for name in _REFERENCE.findall(value)
    ]


def _clean(element: ElementTree.Element, *, kept: set[str]) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    if element.get("id") not in kept:
        element.attrib.pop("id", None)
    if (target := element.attrib.pop(_HREF, None)) is not None:
        element.set("href", target)
    for name in _COORDINATES:
        if name in element.attrib:
            element.set(name, _NUMBER.sub(_shorter, " ".join(element.attrib[name].split())))
    if (style := element.get("style")) is not None:
        style = _COLOUR.sub(lambda match: COLOURS[match[0]], style)
        element.set("style", _FONT.sub("system-ui, sans-serif", style))
    if element.text is not None and not element.text.strip():
        element.text = None
    if element.tail is not None and not element.tail.strip():
        element.tail = None


def _shorter(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _annotate(element: ElementTree.Element, mark: Mark) -> None:
    for name, value in mark.values.items():
        element.set(f"data-{name.replace('_', '-')}", value if isinstance(value, str) else repr(value))
    heading = ElementTree.Element("title")
    heading.text = mark.text
    element.insert(0, heading)


def _set_root(root: ElementTree.Element, marks: Sequence[Mark], *, id: str, title: str, caption: str) -> None:
    view = root.get("viewBox", "")
    width, height = view.split()[2:]
    root.attrib.clear()
    root.set("xmlns", _SVG.strip("{}"))
    root.set("id", id)
    root.set("viewBox", view)
    root.set("width", width)
    root.set("height", height)
    # A notebook has not our style sheet.
    root.set("style", "max-width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt")
    root.set("role", "img")
    root.set("aria-label", f"{title}. {caption}")
    if marks:
        root.set("aria-describedby", f"{id}-values")
        values = ElementTree.Element("desc", {"id": f"{id}-values"})
        values.text = "; ".join(mark.text for mark in marks)
        root.insert(0, values)
