"""`edgeq prune`: remove from devices what nothing there refers to."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from edgeq.cli.device_options import on_option, retries_option, retry_policy
from edgeq.cli.device_results import finish, print_failures
from edgeq.cli.ui import App, command
from edgeq.units import format_size

if TYPE_CHECKING:
    from edgeq.fleet.operations import Pruned


@command("prune", examples=["edgeq prune --on pi --dry-run", "edgeq prune --on label:site=lab --json"])
@on_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@retries_option()
def prune_command(app: App, selectors: tuple[str, ...], dry_run: bool, retries: int) -> None:
    """Remove releases, blobs, runtimes and agent files that nothing on the device refers to.

    The current release, the one a rollback returns to, a soaking one and pinned ones are kept, whatever their
    age.
    """
    from edgeq.fleet.operations import prune_many
    from edgeq.store import Store

    devices = app.inventory().select(selectors)
    # A dry run records nothing, so it also works in a workspace that cannot be written.
    with nullcontext() if dry_run else Store.open(app.workspace) as store:
        results = prune_many(
            devices,
            dry_run=dry_run,
            subject=" ".join(selectors),
            retry_policy=retry_policy(app, retries),
            store=store,
        )
    for name, result in results.done.items():
        for line in _lines(result, dry_run=dry_run):
            app.ui.line(f"{name}: {line}")
    print_failures(app, results.failed)
    body = {"dry_run": dry_run, "devices": results.entries(lambda result: result.document)}
    finish(app, "edgeq.prune/1", body, results.failed, device_count=len(devices), what="prune")
    if dry_run:
        app.ui.again(without="dry_run")
    else:
        app.ui.next("status", devices[0].name)


def _lines(result: Pruned, *, dry_run: bool) -> list[str]:
    counts = [f"{len(names)} {kind}" for kind, names in result.removed.items() if names]
    verb = "would free" if dry_run else "freed"
    freed = (
        f"{verb} {format_size(result.freed_bytes)}: {', '.join(counts)}" if counts else "nothing to remove"
    )
    kept = [
        f"kept release {release[:12]} ({', '.join(reasons)})"
        for release, reasons in sorted(result.kept.releases.items())
    ]
    return [freed, *kept]
