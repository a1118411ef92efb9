"""`edgeq demo`: run the whole path on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from edgeq.cli.ui import App, command


@command("demo", examples=["edgeq demo", "edgeq demo --folder /tmp/edgeq-demo --json"])
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("edgeq-demo"),
    show_default=True,
    help="Folder to work in: new, empty, or from an earlier demo, which is replaced.",
)
def demo_command(app: App, folder: Path) -> None:
    """Train, convert, evaluate, select, deploy over SSH, benchmark, watch for drift, roll back, report."""
    from edgeq.demo.run import run_demo

    result = run_demo(folder, app.ui.say)
    seconds = sum(result.seconds_by_step.values())
    app.ui.emit("edgeq.demo/1", result.to_dict())
    app.ui.line(f"done in {seconds:.0f} s; the report is {folder / result.report.name}")
    app.ui.say(f"next: cd {shlex.quote(str(folder))} && edgeq check blueprint.toml")
