"""`edgeq prune`: remove from devices what nothing there refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgeq.cli.outcome import end, recap_of
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command
from edgeq.units import format_size


@command("prune", examples=["edgeq prune --on pi --dry-run", "edgeq prune --on label:site=lab --json"])
@click.option("--on", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@retries_option()
def prune_command(app: App, selectors: tuple[str, ...], dry_run: bool, retries: int) -> None:
    """Remove releases, files, runtimes and agents that nothing on the device refers to.

    What serves, what a rollback leads to, what is on trial and what is pinned stays, however old it is.
    """
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.operations import prune
    from edgeq.fleet.parallel import on_each
    from edgeq.store import Store

    devices = Inventory.load(app.workspace).select(selectors)
    retry = retry_of(app, retries)
    results = on_each(devices, lambda device: prune(device, dry_run=dry_run, retry=retry))
    entries: list[dict[str, Any]] = []
    for name, answer in results.done.items():
        for line in _lines(answer, dry_run=dry_run):
            app.ui.line(f"{name}: {line}")
        entries.append({"device": name, "ok": True, **answer})
    for name, error in results.failed.items():
        app.ui.line(recap_of(name, error))
        entries.append({"device": name, "ok": False, "error": error.to_dict()})
    if not dry_run:
        with Store.open(app.workspace) as store:
            store.record_run("prune", " ".join(selectors), {"devices": entries})
    body = {"dry_run": dry_run, "devices": entries}
    end(app, "edgeq.prune/1", body, results.failed, asked=len(devices), what="prune")
    app.ui.next(f"edgeq prune --on {selectors[0]}" if dry_run else f"edgeq status {devices[0].name}")


def _lines(answer: Mapping[str, Any], *, dry_run: bool) -> list[str]:
    removed: Mapping[str, list[str]] = answer["removed"]
    counts = [f"{len(names)} {what}" for what, names in removed.items() if names]
    would = "would free" if dry_run else "freed"
    freed = (
        f"{would} {format_size(answer['freed_bytes'])}: {', '.join(counts)}"
        if counts
        else "nothing to remove"
    )
    kept = [
        f"kept release {release[:12]} ({', '.join(reasons)})"
        for release, reasons in sorted(answer["kept"]["releases"].items())
    ]
    return [freed, *kept]
