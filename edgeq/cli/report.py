"""`edgeq report`: write benchmarks, telemetry and drift as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli import completing
from edgeq.cli.options import Number
from edgeq.cli.outputs import check_outputs
from edgeq.cli.ui import App, command


@command("report", examples=["edgeq report -o report.html", "edgeq report -o kws.html --model kws --json"])
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--model",
    help="Include only this model's benchmarks and windows.",
    shell_complete=completing.models,
    metavar="MODEL",
)
@click.option("--title", help="Title of the page.", metavar="TITLE")
@click.option(
    "--alpha",
    default=0.001,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    help="False-alarm probability of the drift tests.",
)
def report_command(app: App, output: Path, model: str | None, title: str | None, alpha: float) -> None:
    """Write a report on variants, benchmarks, telemetry and drift as one HTML page that needs no network."""
    from edgeq.report import build_view, write_report
    from edgeq.store import Store
    from edgeq.units import format_size

    check_outputs((("-o", output),))
    with Store.open(app.workspace) as store:
        named = title or (f"edgeq: {model}" if model else "edgeq report")
        view = build_view(store, title=named, model=model, alpha=alpha)
    path = write_report(output, view)
    size_bytes = path.stat().st_size
    for line in view.verdicts:
        app.ui.line(line.text)
    app.ui.line(f"{path}: {format_size(size_bytes)}, needs no network")
    app.ui.emit(
        "edgeq.report/1",
        {
            "path": path,
            "size_bytes": size_bytes,
            "figures": [figure.id for figure in view.figures],
            "verdicts": [{"level": line.level.value, "text": line.text} for line in view.verdicts],
        },
    )
