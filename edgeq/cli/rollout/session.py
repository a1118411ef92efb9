"""Driving a rollout from a command: its progress as talk, its end as lines, a document and an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.retries import USUAL, retry_of
from edgeq.cli.ui import App
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.rollout.rollout_store import Opened
    from edgeq.fleet.rollout.state import Rollout

_TIMEOUT_S = 15.0


def drive(app: App, opened: Opened, inventory: Inventory, *, retries: int = USUAL) -> None:
    """Be the controller until nothing is left to do without somebody's word.

    Args:
        retries: how often each call begins again when the way to its device fails.
    """
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.rollout import view
    from edgeq.fleet.rollout.fleet import FleetDeployer
    from edgeq.fleet.rollout.pool import ThreadPool
    from edgeq.fleet.rollout.protocols import SystemClock
    from edgeq.fleet.rollout.rollout_store import BUNDLE
    from edgeq.fleet.rollout.runner import Runner
    from edgeq.fleet.rollout.state import State

    rollout = opened.rollout
    bundle = read_bundle(opened.folder / BUNDLE)
    devices = {device.name: device for device in inventory.devices}
    runner = Runner(
        rollout=rollout,
        journal=opened.journal,
        deployer=FleetDeployer(
            devices,
            bundle,
            workspace=app.workspace,
            timeout_s=_TIMEOUT_S,
            soak_s=rollout.terms.soak_s,
            retry=retry_of(app, retries),
        ),
        pool=ThreadPool(),
        clock=SystemClock(),
        request=opened.request,
        tell=lambda event: _tell(app, rollout, event),
    )
    if rollout.state is State.RUNNING:
        app.ui.say(f"{view.stage_line(rollout, rollout.stage)}; begins")
    try:
        runner.run()
    except KeyboardInterrupt:
        app.ui.next(f"edgeq rollout resume {rollout.terms.rollout}")
        raise


def finish(app: App, rollout: Rollout, *, rolled_back: bool = False) -> None:
    """Print how the rollout stands, record it, and end with its error if it has one.

    Args:
        rolled_back: the command was to roll it back: only a device that could not be put back is a failure.
    """
    from edgeq.fleet.rollout import view
    from edgeq.store import Store

    for line in view.lines(rollout):
        app.ui.line(line)
    body = view.to_dict(rollout)
    with Store.open(app.workspace) as store:
        store.record_run("rollout", rollout.terms.model, body)
    error = (None if rolled_back else view.error_of(rollout)) or view.not_restored(rollout)
    end(app, body, error)
    app.ui.next(f"edgeq rollout show {rollout.terms.rollout}")


def end(app: App, body: dict[str, Any], error: EdgeqError | None) -> None:
    """Emit the document; then end with the error, which is also in the document."""
    if error is None:
        app.ui.emit("edgeq.rollout/1", body)
        return
    if not app.ui.as_json:
        raise error
    app.ui.emit("edgeq.rollout/1", {**body, "error": error.to_dict()})
    app.ui.say(f"error[{error.reported_code}]: {error.message}")
    raise click.exceptions.Exit(int(error.exit_status))


def _tell(app: App, rollout: Rollout, event: Any) -> None:
    from edgeq.fleet.rollout import view

    kind = event["event"]
    if kind in ("advanced", "soaking"):
        index = event["stage"]
        what = "begins" if kind == "advanced" else f"soaks for {rollout.terms.soak_s:g} s"
        app.ui.say(f"{view.stage_line(rollout, index)}; {what}")
    elif kind in ("paused", "aborted", "rolling_back"):
        app.ui.say(f"{rollout.terms.rollout}: {kind}, {event.get('reason', '')}")
    elif kind == "outcome":
        app.ui.detail(f"{event['device']}: {event['outcome']} {event['reason']}")
    elif kind in ("deployed", "restored"):
        app.ui.detail(f"{event['device']}: {event.get('result', kind)}")
