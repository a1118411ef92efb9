"""`edgeq search`: choose the operations that stay float, under a blueprint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.options import LIMITS_KIND_OPTION, require_kind
from edgeq.cli.outputs import check_outputs
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, Ui, command
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.search.run import SearchResult
    from edgeq.search.scoring import Point
    from edgeq.values import Device


@command(
    "search",
    help="Search mixed precision for the model of BLUEPRINT: int8, float only where an operation needs it.",
    examples=[
        "edgeq search blueprint.toml",
        "edgeq search blueprint.toml --device pi --html search.html",
        "edgeq search blueprint.toml --kind raspberry-pi",
        "edgeq search blueprint.toml -o best.tflite --json",
    ],
)
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.option(
    "--device",
    help="Time the candidates on this device instead of this machine.",
    shell_complete=completing.devices,
    metavar="DEVICE",
)
@LIMITS_KIND_OPTION
@click.option(
    "--candidates",
    default=6,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Number of choices of float operations to build and time.",
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    help="JSON recipe with settings that all candidates share (calibrator, correction).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the chosen model to this file.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an HTML page with the Pareto fronts to this file.",
)
@click.option("--strict", is_flag=True, help="Fail if the result is useless (EQ334).")
def search_command(
    app: App,
    blueprint: Path,
    device: str | None,
    kind: str | None,
    candidates: int,
    recipe_file: Path | None,
    output: Path | None,
    html: Path | None,
    strict: bool,
) -> None:
    """Search; exit status 3 if no candidate meets every limit."""
    from edgeq.blueprint import load_blueprint
    from edgeq.conversion import load_recipe
    from edgeq.evaluation.evaluation import judged
    from edgeq.files import write_atomic
    from edgeq.report import write_report
    from edgeq.search.latencies import ThisMachine
    from edgeq.search.on_device import OnDevice
    from edgeq.search.page import search_view
    from edgeq.search.remarks import remarks_on
    from edgeq.search.run import search
    from edgeq.selection import require_chosen
    from edgeq.store import Store

    loaded = load_blueprint(blueprint)
    target = None if device is None else app.inventory().get(device)
    applied = _kind(kind, target)
    base = None if recipe_file is None else load_recipe(recipe_file)
    check_outputs(
        (("-o", output), ("--html", html)),
        inputs=(blueprint, recipe_file, loaded.source, loaded.calibration, loaded.evaluation),
    )
    with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
        timing = (
            ThisMachine(on_progress=on_progress)
            if target is None
            else OnDevice(target, blueprint=loaded, workspace=app.workspace, store=store, say=app.ui.warn)
        )
        result = search(
            loaded,
            workspace=app.workspace,
            store=store,
            timing=timing,
            kind=applied,
            count=candidates,
            base=base,
            on_progress=on_progress,
            say=app.ui.step,
        )
    _show(app.ui, result)
    remarks = remarks_on(loaded, kind=applied, on_device=target is not None)
    app.ui.remarks(notes=remarks.notes, warnings=remarks.warnings)
    if html is not None:
        write_report(html, search_view(loaded, result))
        app.ui.say(f"wrote {html}")
    if result.scores.chosen is None:
        require_chosen(result.scores.selection, subject=str(blueprint))
        return
    chosen = result.scores.chosen
    path = chosen.variant.path
    if useless := judged(path, chosen.variant.metrics, strict=strict):
        app.ui.warn(useless)
    if output is not None:
        write_atomic(output, path.read_bytes())
        path = output
    document = {**result.to_json(), "path": str(path), **remarks.to_json()}
    app.ui.emit("edgeq.search/1", document)
    of_kind = () if applied is None else ("--kind", applied.value)
    app.ui.next("bundle", path, "-o", f"{loaded.name}.eqb", "--blueprint", blueprint, *of_kind)


def _kind(kind: str | None, target: Device | None) -> DeviceKind | None:
    if target is None:
        return None if kind is None else DeviceKind(kind)
    require_kind(kind, target)
    return target.kind


def _show(ui: Ui, result: SearchResult) -> None:
    ui.table(
        ["candidate", "size", "p50", "p95", "accuracy", "worst SQNR", "float ops", "front", "limits"],
        [_row(point) for point in result.scores.points],
    )
    for each in result.candidates:
        if each.variant is None:
            ui.line(f"{each.name}: not built: {each.problem}")
    ui.line()
    ui.line(result.scores.verdict)
    if result.where.startswith("host"):
        ui.line("latency was measured on this machine, one thread; --device NAME measures on a device")
    if result.reused:
        ui.line(f"{result.reused} of {result.reused + result.done} steps came from earlier runs")


def _row(point: Point) -> list[str]:
    from edgeq.units import format_duration, format_percent, format_size

    metrics, latency = point.variant.metrics, point.latency
    return [
        point.variant.name,
        format_size(point.variant.size_bytes),
        "-" if latency is None else format_duration(latency.p50_ns),
        "-" if latency is None else format_duration(latency.p95_ns),
        "-" if metrics.accuracy is None else format_percent(metrics.accuracy),
        _db(metrics.worst_sqnr_db),
        str(len(point.built.recipe.float_ops)),
        "yes" if point.on_front else "no",
        point.limits_text,
    ]


def _db(value: float | None) -> str:
    if value is None:
        return "-"
    return "no noise" if math.isinf(value) else f"{value:.1f} dB"
