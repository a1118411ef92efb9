"""`edgeq lineage`: show how a model was made, back to its original source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.ui import App, Ui, command

if TYPE_CHECKING:
    from edgeq.conversion.lineage import FileRecord, Lineage


@command(
    "lineage",
    help="Show how a model was made. Name it by a FILE, a bundle, or the first digits of a DIGEST.",
    examples=["edgeq lineage int8.tflite", "edgeq lineage 3f9a2c --json", "edgeq lineage kws.eqb"],
)
@click.argument("what", metavar="DIGEST|FILE")
def lineage_command(app: App, what: str) -> None:
    """Show how a model was made."""
    from edgeq.cli.recorded import chain

    links = chain(app.workspace, what)
    app.ui.emit("edgeq.lineages/1", {"lineage": [link.to_json() for link in links]})
    for depth, link in enumerate(links):
        if depth:
            app.ui.line()
        _show(app.ui, link)
    app.ui.next("reproduce", links[0].output.sha256[:12])


def _show(ui: Ui, link: Lineage) -> None:
    from edgeq.conversion.lineage import short

    recipe = {
        key: f"{len(value)} learned" if key == "ranges" else value
        for key, value in link.recipe.items()
        if key != "schema" and value not in (None, [], ())
    }
    rows = [["file", short(link.output.sha256), _where(link.output)]]
    rows.append(["source", short(link.source.sha256), _where(link.source)])
    rows += [[name, short(item.sha256), _where(item)] for name, item in link.data.items()]
    rows.append(["recipe", short(link.recipe_sha256), ", ".join(f"{k}={v}" for k, v in recipe.items())])
    if (chosen := link.chosen_by) is not None:
        search = f"{chosen.blueprint.name}, {chosen.candidates} candidates, timed on {chosen.timed_on}"
        rows.append(["searched under", short(chosen.blueprint.sha256), search])
        rows.append(["evaluation", short(chosen.evaluation.sha256), _where(chosen.evaluation)])
    rows.append(["tools", "", ", ".join(f"{name} {number}" for name, number in sorted(link.tools.items()))])
    rows.append(["machine", "", _machine(link.environment)])
    ui.table(["", "sha256", ""], rows)


def _machine(environment: Mapping[str, str]) -> str:
    return ", ".join(
        f"{value} cores" if name == "cores" else value for name, value in environment.items() if value
    )


def _where(item: FileRecord) -> str:
    from edgeq.units import format_size

    size = format_size(item.size_bytes)
    if item.path is None:
        return f"arrays given in Python, {size}"
    missing = "" if Path(item.path).exists() else ", missing"
    return f"{item.path} ({size}{missing})"
