"""`edgeq rollback`: put a device's model back to its previous release."""

from __future__ import annotations

from typing import Any

import click

from edgeq.cli.outcome import end, recap_of
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command


@command("rollback", examples=["edgeq rollback kws --on pi", "edgeq rollback kws --on label:site=lab --json"])
@click.argument("model")
@click.option("--on", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all.")
@retries_option()
def rollback_command(app: App, model: str, selectors: tuple[str, ...], retries: int) -> None:
    """Put MODEL back to the release that served before; that one's health is checked first."""
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.operations import rollback
    from edgeq.fleet.parallel import on_each
    from edgeq.store import Store

    devices = Inventory.load(app.workspace).select(selectors)
    retry = retry_of(app, retries)
    results = on_each(devices, lambda device: rollback(device, model, retry=retry))
    entries: list[dict[str, Any]] = []
    for name, answer in results.done.items():
        before = f", before {answer['previous'][:12]}" if answer.get("previous") else ""
        app.ui.line(f"{name}: {model} {answer['release'][:12]} serves again{before}")
        entries.append({"device": name, "ok": True, **answer})
    for name, error in results.failed.items():
        app.ui.line(recap_of(name, error))
        entries.append({"device": name, "ok": False, "error": error.to_dict()})
    with Store.open(app.workspace) as store:
        store.record_run("rollback", model, {"devices": entries})
    body = {"model": model, "devices": entries}
    end(app, "edgeq.rollback/1", body, results.failed, asked=len(devices), what="rollback")
    app.ui.next(f"edgeq status {devices[0].name}")
