"""A run as Markdown, for a pull request or the summary of a job."""

from __future__ import annotations

import re

from edgeq.pipeline import sections
from edgeq.pipeline.result import RunResult
from edgeq.report.view import Level, Table
from edgeq.text import one_line

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&!])")
# GitHub looks for names of people and numbers of issues in what is left after the escapes.
_REFERENCE = re.compile(r"([@#])")
_WORDS = {Level.OK: "Pass", Level.NOTE: "Note", Level.BAD: "Fail"}
_COLUMNS = ("candidate", "size", "accuracy", "change", "worst SQNR", "limits")


def run_markdown(result: RunResult) -> str:
    """Return the verdict, the limits, the candidates and what was left out as GitHub-flavoured Markdown."""
    blocks = [f"## {escaped(result.blueprint.name)}"]
    blocks += [f"**{_WORDS[line.level]}:** {escaped(line.text)}" for line in sections.verdicts(result)]
    blocks += [escaped(text) for text in sections.gates_section(result).sentences]
    blocks += [markdown_table(table) for table in sections.gates_section(result).tables]
    if result.selection.candidates:
        blocks.append(markdown_table(_narrow(sections.candidates_table(result))))
    for section in (sections.skipped_section(result), sections.refused_section(result)):
        if section is not None:
            blocks += [markdown_table(table) for table in section.tables]
    blocks.append(f"Blueprint `{result.blueprint.digest[:12]}`, {escaped(_chosen_digest(result))}.")
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table with its title above it."""
    rules = ["---:" if index in table.numeric else "---" for index in range(len(table.headings))]
    rows = [[escaped(cell) for cell in row] for row in (table.headings, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:])]
    return f"**{escaped(table.title)}**\n\n" + "\n".join(lines)


def escaped(text: str) -> str:
    """Return a text that means nothing else in Markdown, in HTML or on GitHub, whatever is in it."""
    return _REFERENCE.sub(r"\1<!-- -->", _SPECIAL.sub(r"\\\1", one_line(text)))


def _narrow(table: Table) -> Table:
    """Return the columns that a pull request has room for: those of `_COLUMNS` and the latencies."""
    kept = [
        index
        for index, heading in enumerate(table.headings)
        if heading in _COLUMNS or heading.startswith("p50 ")
    ]
    return Table(
        id=table.id,
        title=table.title,
        headings=tuple(table.headings[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in table.rows),
        numeric=tuple(at for at, index in enumerate(kept) if index in table.numeric),
    )


def _chosen_digest(result: RunResult) -> str:
    if result.chosen is None:
        return "no file chosen"
    return f"file {result.chosen.variant.sha256[:12]}"
