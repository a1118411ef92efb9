"""Write a report as one HTML file that includes all scripts, styles and data."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from edgeq.errors import MissingExtra, UsageError
from edgeq.files import write_atomic
from edgeq.report.view import ReportView
from edgeq.text import one_line, several_lines


def write_report(path: Path, view: ReportView) -> Path:
    """Write the page atomically, replacing an existing file, and return its path.

    Raises:
        MissingExtra: plotly or jinja2 is not installed.
        UsageError: the file cannot be written.
    """
    page = render(view)
    try:
        write_atomic(path, page.encode("utf-8"))
    except OSError as error:
        raise UsageError(
            str(path), f"cannot be written ({error.strerror})", hint="choose another file with -o"
        ) from error
    return path


def render(view: ReportView) -> str:
    """Return the page.

    Raises:
        MissingExtra: plotly or jinja2 is not installed.
    """
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtra(
            "edgeq report", f"{error.name} is not installed", hint="run `pip install 'edgeq[dashboard]'`"
        ) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_printable
    )
    template = environment.from_string(_asset("page.html.j2"))
    figures = [
        {"id": figure.id, "data": _as_text(figure.data), "layout": _as_text(figure.layout)}
        for figure in view.figures
    ]
    return template.render(
        view=view,
        style=_inline(environment, _asset("page.css")),
        plotly=_inline(environment, get_plotlyjs()),
        script=_inline(environment, _asset("page.js")),
        figures=_inline(environment, json_for_html(figures)),
    )


def json_for_html(value: Any) -> str:
    """Return JSON for use in a script element: it contains no character that could end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _printable(value: Any) -> Any:
    # It may be a device's text: bidirectional controls would reorder the page.
    return several_lines(value) if type(value) is str else value


def _as_text(value: Any) -> Any:
    # Plotly interprets text as a subset of HTML; a model may be called "<b>".
    if isinstance(value, str):
        return html.escape(one_line(value), quote=False)
    if isinstance(value, Mapping):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    return value


def _asset(name: str) -> str:
    return resources.files("edgeq.report").joinpath(name).read_text(encoding="utf-8")


def _inline(environment: Any, text: str) -> Any:
    # Not escaped: the four values are our own files, the installed plotly, and JSON without markup.
    return environment.filters["safe"](text)
