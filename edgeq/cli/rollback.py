"""`edgeq rollback`: return a model on devices to its previous release."""

from __future__ import annotations

import click

from edgeq.cli import completing
from edgeq.cli.device_options import on_option, retries_option, retry_policy
from edgeq.cli.device_results import finish, print_failures
from edgeq.cli.ui import App, command


@command("rollback", examples=["edgeq rollback kws --on pi", "edgeq rollback kws --on label:site=lab --json"])
@click.argument("model", shell_complete=completing.models)
@on_option
@retries_option()
def rollback_command(app: App, model: str, selectors: tuple[str, ...], retries: int) -> None:
    """Return MODEL to its previous release, after a health check of that release."""
    from edgeq.fleet.operations import rollback_many
    from edgeq.store import Store

    devices = app.inventory().select(selectors)
    with Store.open(app.workspace) as store:
        results = rollback_many(devices, model, retry_policy=retry_policy(app, retries), store=store)
    for name, result in results.done.items():
        before = f" in place of {result.previous[:12]}" if result.previous else ""
        app.ui.line(f"{name}: {model} {result.release[:12]} serves again{before}")
    print_failures(app, results.failed)
    body = {"model": model, "devices": results.entries(lambda result: result.document)}
    finish(app, "edgeq.rollback/1", body, results.failed, device_count=len(devices), what="rollback")
    app.ui.next("status", devices[0].name)
