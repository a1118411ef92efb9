"""`edgeq plan`: show what a bundle would change on devices."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.deploy_lines import print_plans, recap
from edgeq.cli.device_options import retries_option, retry_policy, to_option
from edgeq.cli.device_results import finish
from edgeq.cli.ui import App, command


@command("plan", examples=["edgeq plan kws.eqb --to pi", "edgeq plan kws.eqb --to label:site=lab --json"])
@click.argument("bundle", type=click.Path(path_type=Path))
@to_option
@retries_option()
def plan_command(app: App, bundle: Path, selectors: tuple[str, ...], retries: int) -> None:
    """Show what BUNDLE would change on each device; what devices serve is not changed."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.deploy_many import plan_many

    content = read_bundle(bundle)
    devices = app.inventory().select(selectors)
    entries = plan_many(devices, content, workspace=app.workspace, retry_policy=retry_policy(app, retries))
    print_plans(app, content, entries)
    for entry in entries:
        app.ui.line(recap(entry, content))
    body = {
        "bundle": str(bundle),
        "model": content.model,
        "release": content.release,
        "devices": [entry.to_dict() for entry in entries],
    }
    failed = {entry.device: entry.error for entry in entries if entry.error}
    finish(app, "edgeq.plan/1", body, failed, device_count=len(devices), what="plan")
    more = (word for selector in selectors[1:] for word in ("--to", selector))
    app.ui.next("deploy", bundle, "--to", selectors[0], *more)
