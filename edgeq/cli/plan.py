"""`edgeq plan`: what a bundle would change on devices."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.deploy import entry_of, recap, show
from edgeq.cli.outcome import end
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command


@command("plan", examples=["edgeq plan kws.eqb --to pi", "edgeq plan kws.eqb --to label:site=lab --json"])
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all.")
@retries_option()
def plan_command(app: App, bundle: Path, selectors: tuple[str, ...], retries: int) -> None:
    """Ask each device, and show what BUNDLE would change there; nothing that serves is changed."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.deploy import plan_one
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.parallel import on_each

    content = read_bundle(bundle)
    devices = Inventory.load(app.workspace).select(selectors)
    retry = retry_of(app, retries)
    plans = on_each(devices, lambda device: plan_one(device, content, workspace=app.workspace, retry=retry))
    failed = {**plans.failed, **show(app, content, plans.done)}
    for device in devices:
        app.ui.line(recap(device.name, plans.done, {}, failed, content))
    body = {
        "bundle": str(bundle),
        "model": content.model,
        "release": content.release,
        "devices": [entry_of(device.name, plans.done, {}, failed) for device in devices],
    }
    end(app, "edgeq.plan/1", body, failed, asked=len(devices), what="plan")
    app.ui.next(f"edgeq deploy {bundle} {' '.join(f'--to {selector}' for selector in selectors)}")
