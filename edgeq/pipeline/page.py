"""The page of a run: one HTML file that needs neither a network nor a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import resources
from pathlib import PurePath
from typing import Any

from edgeq.errors import MissingExtra
from edgeq.pipeline import sections
from edgeq.pipeline.details import details_sections
from edgeq.pipeline.figures import latency_figures, pareto_figures
from edgeq.pipeline.result import RunResult
from edgeq.pipeline.sections import Section
from edgeq.report.page import json_for_html
from edgeq.report.vector import require_matplotlib
from edgeq.report.view import utc_now
from edgeq.text import finite, several_lines
from edgeq.version import VERSION


def require_page_libraries() -> None:
    """Check that a page can be made, before the work that it shows.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    require_matplotlib()
    _jinja2()


def run_page(result: RunResult, *, now: Callable[[], datetime] = utc_now) -> str:
    """Return the page of a run as HTML, in UTF-8 text.

    The verdict comes first; then the limits, the Pareto plots, all candidates, what was left out, where the
    chosen model (else the nearest) is worse than its float model, and how its file was made. The run's JSON
    is in the element `#run`, with file names in place of paths.

    Args:
        now: the current time.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=_printable,
    )
    template = environment.from_string(_asset("edgeq.pipeline", "run_page.html.j2"))
    page: str = template.render(
        title=f"{result.blueprint.name}: {_outcome(result)}",
        heading=result.blueprint.name,
        verdicts=sections.verdicts(result),
        sections=page_sections(result),
        style=_asset("edgeq.report", "page.css") + _asset("edgeq.pipeline", "run_page.css"),
        document=json_for_html(_without_folders(finite(result.to_json()))),
        created=now().strftime("%Y-%m-%d %H:%M UTC"),
        version=VERSION,
    )
    return page


def page_sections(result: RunResult) -> tuple[Section, ...]:
    """Return the sections of the page in their order.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figures = (*pareto_figures(result), *latency_figures(result))
    optional = (
        sections.gates_section(result),
        Section(id="figures", title="Trade-offs", figures=figures) if figures else None,
        sections.candidates_section(result) if result.selection.candidates else None,
        sections.skipped_section(result),
        sections.refused_section(result),
        *_details(result),
        sections.provenance_section(result),
    )
    return tuple(section for section in optional if section is not None)


def _details(result: RunResult) -> tuple[Section, ...]:
    examined = result.chosen or result.nearest
    if result.details is None or examined is None:
        return ()
    return details_sections(result.details, examined.variant.name)


def _outcome(result: RunResult) -> str:
    return "no candidate meets every limit" if result.chosen is None else result.chosen.variant.name


def _jinja2() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra(
            "the page of a run", "jinja2 is not installed", hint="run `pip install 'edgeq[dashboard]'`"
        ) from error
    return jinja2


def _without_folders(value: Any) -> Any:
    """Return a document with the names of files in place of their paths: the page goes to others."""
    if isinstance(value, Mapping):
        return {
            key: PurePath(item).name if key == "path" and isinstance(item, str) else _without_folders(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return value


def _printable(value: Any) -> Any:
    # A name may be a device's or a model's text: bidirectional controls would reorder the page.
    return several_lines(value) if type(value) is str else value


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
