"""`edgeq runs`: list the recorded runs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import click

from edgeq.cli.ui import App, command


@command("runs", examples=["edgeq runs", "edgeq runs --kind deploy --json"])
@click.option("--kind", help="Show only runs of this kind: convert, bundle, deploy, ...", metavar="KIND")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Show at most this many runs, newest first.",
)
def runs_command(app: App, kind: str | None, limit: int) -> None:
    """List recorded runs, newest first."""
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        runs = store.runs(kind, limit)
    rows = [[str(run.id), _time(run.created_ns), run.kind, run.subject] for run in runs]
    if rows:
        app.ui.table(["run", "when (UTC)", "kind", "subject"], rows)
    else:
        app.ui.say("no runs recorded yet" if kind is None else f"no runs of kind {kind} recorded yet")
    app.ui.emit(
        "edgeq.runs/1",
        {"runs": [{**asdict(run), "created": f"{_time(run.created_ns)}Z"} for run in runs]},
    )
    app.ui.next("report", "-o", "report.html")


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
