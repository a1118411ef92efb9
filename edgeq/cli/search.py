"""`edgeq search`: which operations should stay float, under a blueprint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.convert import followed
from edgeq.cli.ui import App, Ui, command

if TYPE_CHECKING:
    from edgeq.search.run import Searched
    from edgeq.search.scoring import Point


@command(
    "search",
    help="Search mixed precision for BLUEPRINT's model: int8 with the few operations float that need it.",
    examples=[
        "edgeq search blueprint.toml",
        "edgeq search blueprint.toml --device pi --html search.html",
        "edgeq search blueprint.toml -o best.tflite --json",
    ],
)
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.option("--device", help="Time the candidates on this device instead of this machine.")
@click.option(
    "--candidates",
    default=6,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Choices of float operations to build and time.",
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    help="What all candidates have in common (calibrator, correction), as JSON.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the chosen model here.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the fronts to this page."
)
def search_command(
    app: App,
    blueprint: Path,
    device: str | None,
    candidates: int,
    recipe_file: Path | None,
    output: Path | None,
    html: Path | None,
) -> None:
    """Search; exit status 3 when no candidate holds every limit."""
    from edgeq.blueprint import load_blueprint
    from edgeq.conversion import load_recipe
    from edgeq.files import write_atomic
    from edgeq.fleet.inventory import Inventory
    from edgeq.report import write_report
    from edgeq.search.document import to_document
    from edgeq.search.latencies import ThisMachine
    from edgeq.search.on_device import OnDevice
    from edgeq.search.page import search_view
    from edgeq.search.run import search
    from edgeq.selection import require_chosen
    from edgeq.store import Store

    loaded = load_blueprint(blueprint)
    target = None if device is None else Inventory.load(app.workspace).get(device)
    base = None if recipe_file is None else load_recipe(recipe_file)
    with Store.open(app.workspace) as store, followed(app.ui) as on_progress:
        timing = (
            ThisMachine(on_progress=on_progress)
            if target is None
            else OnDevice(target, blueprint=loaded, workspace=app.workspace, store=store, say=app.ui.say)
        )
        found = search(
            loaded,
            workspace=app.workspace,
            store=store,
            timing=timing,
            kind=None if target is None else target.kind,
            count=candidates,
            base=base,
            on_progress=on_progress,
            say=app.ui.say,
        )
        document = to_document(found)
        store.record_run("search", loaded.name, document)
    _show(app.ui, found)
    if html is not None:
        write_report(html, search_view(loaded, found))
        app.ui.say(f"wrote {html}")
    if found.judged.chosen is None:
        require_chosen(found.judged.selection, subject=str(blueprint))
        return
    chosen = found.judged.chosen
    path = chosen.variant.path
    if output is not None:
        write_atomic(output, path.read_bytes())
        path = output
    app.ui.emit("edgeq.search/1", {**document, "path": str(path)})
    app.ui.next(f"edgeq bundle {path} -o {loaded.name}.eqb --blueprint {blueprint}")


def _show(ui: Ui, found: Searched) -> None:
    ui.table(
        ["candidate", "size", "p50", "p95", "accuracy", "SQNR", "float ops", "front", "limits"],
        [_row(point) for point in found.judged.points],
    )
    for each in found.candidates:
        if each.variant is None:
            ui.line(f"{each.name}: not made: {each.problem}")
    ui.line()
    ui.line(found.judged.verdict)
    if found.where.startswith("host"):
        ui.line("latency is this machine's, one thread; --device NAME times on a device")
    if found.reused:
        ui.line(f"{found.reused} of {found.reused + found.done} pieces of work were on record")


def _row(point: Point) -> list[str]:
    from edgeq.units import format_duration, format_percent, format_size

    metrics, latency = point.variant.metrics, point.latency
    words = {True: "holds", False: "FAILS", None: "not measured"}
    return [
        point.variant.name,
        format_size(point.variant.size_bytes),
        "-" if latency is None else format_duration(latency.p50_ns),
        "-" if latency is None else format_duration(latency.p95_ns),
        "-" if metrics.accuracy is None else format_percent(metrics.accuracy),
        _db(metrics.output_sqnr_db),
        str(len(point.built.recipe.float_ops)),
        "yes" if point.on_front else "no",
        ", ".join(f"{gate.name} {words[gate.holds]}" for gate in point.gates) or "none stated",
    ]


def _db(value: float | None) -> str:
    if value is None:
        return "-"
    return "no noise" if math.isinf(value) else f"{value:.1f} dB"
