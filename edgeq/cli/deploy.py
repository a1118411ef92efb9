"""`edgeq deploy`: show what a bundle changes on devices, then deploy it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.deploy_lines import print_plans, recap
from edgeq.cli.device_options import (
    DEFAULT_RETRIES,
    DEPLOY_RETRIES,
    retries_option,
    retry_policy,
    to_option,
    yes_option,
)
from edgeq.cli.device_results import finish
from edgeq.cli.progress import Unit
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError
from edgeq.units import format_size, parse_duration

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.fleet.apply import Progress
    from edgeq.fleet.deploy import DeviceDeploy
    from edgeq.values import Device


@command(
    "deploy",
    examples=[
        "edgeq deploy kws.eqb --to pi",
        "edgeq deploy kws.eqb --to label:site=lab --dry-run",
        "edgeq deploy kws.eqb --to all --yes --json",
        "edgeq deploy kws.eqb --to pi --soak 10m",
        "edgeq deploy kws.eqb --to all --stages 1,10%,50%,100% --soak 10m --abort 'failed>5%,silent>10%'",
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@to_option
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@yes_option
@click.option("--stages", help="Deploy in stages: 1,10%,50%,100%, label:KEY=VALUE, or all.", metavar="STAGES")
@click.option(
    "--soak",
    help="Soak time before the release is committed, e.g. 10m; failures roll it back. [default: 0s]",
    metavar="DURATION",
)
@click.option(
    "--abort",
    help="When to abort: failed>5%,silent>10%,min=5. [with --stages; default: any>10%,min=5]",
    metavar="RULES",
)
@click.option(
    "--on-abort",
    type=click.Choice(["stop", "rollback"]),
    help="What to do when the abort rule fires. [with --stages; default: stop]",
)
@click.option("--at-once", type=click.IntRange(1, 256), help="Devices at a time. [with --stages; default: 8]")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Continue the last rollout of this bundle with its failed devices.",
)
@click.option(
    "--retry",
    "ignore_attempt_limit",
    is_flag=True,
    help="Try again a release that a device blocks after repeated failures (EQ520).",
)
@retries_option(None, f"{DEPLOY_RETRIES}; {DEFAULT_RETRIES} with --stages")
def deploy_command(
    app: App,
    bundle: Path,
    selectors: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    stages: str | None,
    soak: str | None,
    abort: str | None,
    on_abort: str | None,
    at_once: int | None,
    retry_failed: bool,
    ignore_attempt_limit: bool,
    retries: int | None,
) -> None:
    """Deploy BUNDLE to devices: show what changes on each, then change it, all at once or in stages."""
    from edgeq.cli.rollout.options import StageOptions
    from edgeq.cli.rollout.start import deploy_in_stages

    options = StageOptions(
        stages=stages,
        soak=soak,
        abort=abort,
        on_abort=on_abort,
        at_once=at_once,
        retry_failed=retry_failed,
        retries=DEFAULT_RETRIES if retries is None else retries,
    )
    if options.staged and ignore_attempt_limit:
        raise UsageError(
            "--retry",
            "cannot be combined with --stages",
            hint="deploy to the devices that block it: `edgeq deploy BUNDLE --to DEVICE --retry`",
        )
    if options.staged:
        deploy_in_stages(app, bundle, selectors, options, dry_run=dry_run, yes=yes)
        return
    _deploy(
        app,
        bundle,
        selectors,
        soak_s=parse_duration(soak, subject="--soak") / 1e9 if soak else 0.0,
        ignore_attempt_limit=ignore_attempt_limit,
        retries=DEPLOY_RETRIES if retries is None else retries,
        dry_run=dry_run,
        yes=yes,
    )


def _deploy(
    app: App,
    path: Path,
    selectors: tuple[str, ...],
    *,
    soak_s: float,
    ignore_attempt_limit: bool,
    retries: int,
    dry_run: bool,
    yes: bool,
) -> None:
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.deploy_many import deploy_many, needs_apply, plan_many

    bundle = read_bundle(path)
    devices = app.inventory().select(selectors)
    policy = retry_policy(app, retries)
    entries = plan_many(devices, bundle, workspace=app.workspace, retry_policy=policy)
    print_plans(app, bundle, entries)
    to_do = [entry for entry in entries if needs_apply(entry)]
    if to_do and not dry_run:
        if not _confirmed(app, to_do, yes=yes):
            app.ui.say("nothing was changed")
            return
        send_bytes = {entry.device: entry.planned.plan.send_bytes for entry in to_do if entry.planned}
        with app.ui.progress_of("sending", send_bytes, unit=Unit.BYTES) as work:

            def show(event: Progress) -> None:
                if event.reached:
                    app.ui.detail(f"{event.device}: {event.step.part.value} {event.reached}")
                    work.note(event.device, f"{event.step.part.value} {event.reached}")
                else:
                    work.advance(event.device, event.sent_bytes)

            entries = deploy_many(
                devices,
                bundle,
                workspace=app.workspace,
                planned=entries,
                on_event=show,
                retry_policy=policy,
                soak_s=soak_s,
                ignore_attempt_limit=ignore_attempt_limit,
            )
    elif not dry_run:
        # No device needs the release; the run is recorded.
        entries = deploy_many(devices, bundle, workspace=app.workspace, planned=entries)
    _report(app, path, bundle, devices, entries, dry_run=dry_run)


def _confirmed(app: App, entries: Sequence[DeviceDeploy], *, yes: bool) -> bool:
    names = ", ".join(entry.device for entry in entries)
    send_bytes = sum(entry.planned.plan.send_bytes for entry in entries if entry.planned)
    return app.ui.confirm(f"Change {names}, sending {format_size(send_bytes)}?", yes=yes)


def _report(
    app: App,
    path: Path,
    bundle: Bundle,
    devices: Sequence[Device],
    entries: Sequence[DeviceDeploy],
    *,
    dry_run: bool,
) -> None:
    for entry in entries:
        app.ui.line(recap(entry, bundle))
    body = {
        "bundle": str(path),
        "model": bundle.model,
        "release": bundle.release,
        "dry_run": dry_run,
        "devices": [entry.to_dict() for entry in entries],
    }
    failed = {entry.device: entry.error for entry in entries if entry.error}
    finish(app, "edgeq.deploy/1", body, failed, device_count=len(devices), what="deploy")
    if dry_run:
        app.ui.again(without="dry_run")
    else:
        app.ui.next("bench", bundle.model, "--on", devices[0].name)
