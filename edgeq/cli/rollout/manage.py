"""`edgeq rollout`: list, show, pause, resume, abort and roll back staged rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.device_options import DEFAULT_RETRIES, retries_option, retry_policy, yes_option
from edgeq.cli.rollout.output import SCHEMA, finish, progress
from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import RolloutDamaged

if TYPE_CHECKING:
    from edgeq.fleet.rollout.operations import Intervention


@click.group("rollout", cls=CommandGroup)
def rollout_command() -> None:
    """List, show, pause, resume, abort and roll back staged rollouts."""


@command("list", examples=["edgeq rollout list", "edgeq rollout list --json"])
def _list(app: App) -> None:
    """List the rollouts of this workspace, oldest first."""
    from edgeq.fleet.rollout import rollout_store, view

    rows, entries = [], []
    for rollout in rollout_store.read_all(app.workspace):
        if isinstance(rollout, RolloutDamaged):
            app.ui.warn(rollout.message)
            entries.append({"error": rollout.to_dict()})
            continue
        entry = view.summary(rollout)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in entry["counts"].items())
        stage = f"{entry['stage'] + 1}/{entry['stages']}"
        rows.append([entry["rollout"], entry["state"], stage, str(entry["devices"]), counts])
        entries.append(entry)
    app.ui.table(["rollout", "state", "stage", "devices", "outcomes"], rows)
    app.ui.emit("edgeq.rollouts/1", {"rollouts": entries})


@command("show", examples=["edgeq rollout show kws-1a2b3c4d-1", "edgeq rollout show kws-1a2b3c4d-1 --json"])
@click.argument("rollout", shell_complete=completing.rollouts)
def _show(app: App, rollout: str) -> None:
    """Show each stage and each failed device of ROLLOUT, from its journal; no device is contacted."""
    from edgeq.fleet.rollout import rollout_store, view

    progress = rollout_store.read(app.workspace, rollout)
    for line in view.lines(progress):
        app.ui.line(line)
    app.ui.emit(SCHEMA, view.to_dict(progress))


@command("pause", examples=["edgeq rollout pause kws-1a2b3c4d-1"])
@click.argument("rollout", shell_complete=completing.rollouts)
def _pause(app: App, rollout: str) -> None:
    """Pause ROLLOUT: deploys in progress are finished, no other one is started."""
    from edgeq.fleet.rollout import operations

    _show_intervention(app, operations.pause(app.workspace, rollout), "pause")


@command("abort", examples=["edgeq rollout abort kws-1a2b3c4d-1"])
@click.argument("rollout", shell_complete=completing.rollouts)
def _abort(app: App, rollout: str) -> None:
    """Abort ROLLOUT, then stop or roll back as its --on-abort says."""
    from edgeq.fleet.rollout import operations

    with progress(app) as printer:
        intervention = operations.abort(
            app.workspace, rollout, retry_policy=retry_policy(app, DEFAULT_RETRIES), observer=printer
        )
    _show_intervention(app, intervention, "abort")


@command(
    "resume",
    examples=[
        "edgeq rollout resume kws-1a2b3c4d-1",
        "edgeq rollout resume kws-1a2b3c4d-1 --retry-failed",
        "edgeq rollout resume kws-1a2b3c4d-1 --accept",
    ],
)
@click.argument("rollout", shell_complete=completing.rollouts)
@click.option("--retry-failed", is_flag=True, help="Deploy again to the devices that failed.")
@click.option(
    "--accept", is_flag=True, help="Continue without the failed devices of the stage that paused the rollout."
)
@retries_option()
def _resume(app: App, rollout: str, retry_failed: bool, accept: bool, retries: int) -> None:
    """Continue ROLLOUT after a pause, or after its controller died."""
    from edgeq.fleet.rollout import operations

    with progress(app) as printer:
        resumed = operations.resume(
            app.workspace,
            rollout,
            retry_failed=retry_failed,
            accept=accept,
            retry_policy=retry_policy(app, retries),
            observer=printer,
        )
    finish(app, resumed)


@command("rollback", examples=["edgeq rollout rollback kws-1a2b3c4d-1"])
@click.argument("rollout", shell_complete=completing.rollouts)
@yes_option
def _rollback(app: App, rollout: str, yes: bool) -> None:
    """Restore, on each device that ROLLOUT changed, the release that served before it."""
    from edgeq.fleet.rollout import operations

    with progress(app) as printer:
        rolled_back = operations.roll_back(
            app.workspace,
            rollout,
            confirm=lambda count: app.ui.confirm(f"Restore {count} devices?", yes=yes),
            retry_policy=retry_policy(app, DEFAULT_RETRIES),
            observer=printer,
        )
    if rolled_back is None:
        app.ui.say("nothing was changed")
        return
    finish(app, rolled_back, rolled_back=True)


for _command in (_list, _show, _pause, _abort, _resume, _rollback):
    rollout_command.add_command(_command)


def _show_intervention(app: App, intervention: Intervention, request: str) -> None:
    from edgeq.fleet.rollout import view

    rollout = intervention.rollout
    body = view.to_dict(rollout)
    if intervention.requested:
        name = rollout.spec.rollout
        app.ui.line(f"{name}: requested from its controller; deploys in progress are finished first")
        body["asked"] = request
    else:
        for line in view.lines(rollout):
            app.ui.line(line)
    app.ui.emit(SCHEMA, body)
