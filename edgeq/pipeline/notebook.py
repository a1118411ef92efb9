"""A run as the output of a notebook's cell: verdict, Pareto plots and table, as an HTML fragment."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from edgeq.errors import MissingExtra
from edgeq.pipeline import sections
from edgeq.pipeline.figures import pareto_figures
from edgeq.report.view import Table
from edgeq.text import one_line

if TYPE_CHECKING:
    from edgeq.pipeline.result import RunResult


def fragment(result: RunResult) -> str:
    """Return the result as HTML without `<html>`, in the colours of the notebook; it needs no script.

    Without matplotlib it has no plots, and says how to get them.
    """
    verdict, *more = sections.verdicts(result)
    parts = [f"<p><strong>{_text(verdict.text)}</strong></p>"]
    parts += [f"<p>{_text(line.text)}</p>" for line in more]
    parts.append(_plots(result))
    parts += [_table(table) for table in sections.gates_section(result).tables]
    if result.selection.candidates:
        parts.append(_table(sections.candidates_table(result)))
    return f'<div class="edgeq-run">{"".join(parts)}</div>'


def _plots(result: RunResult) -> str:
    # Cells of one notebook share a page: the ids of their figures must differ.
    prefix = f"run-{result.blueprint.digest[:8]}-"
    try:
        drawings = pareto_figures(result, prefix=prefix)
    except MissingExtra as error:
        return f"<p>No plots: {_text(error.message)}. {_text(error.hint or '')}</p>"
    figures = "".join(f'<figure style="margin: 0">{drawing.svg}</figure>' for drawing in drawings)
    return f'<div style="display: flex; flex-wrap: wrap; gap: 1em">{figures}</div>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(each)}</th>' for each in table.headings)
    rows = "".join(
        "<tr>"
        + f'<th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{_text(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _text(text: str) -> str:
    return escape(one_line(text))
