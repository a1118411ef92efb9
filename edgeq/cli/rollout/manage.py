"""`edgeq rollout`: list, show, pause, resume, abort and roll back staged rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli.retries import USUAL, retries_option
from edgeq.cli.rollout.session import drive, end, finish
from edgeq.cli.ui import App, command
from edgeq.errors import RolloutBusy, RolloutDamaged, RolloutError

if TYPE_CHECKING:
    from edgeq.fleet.rollout.rollout_store import Opened
    from edgeq.fleet.rollout.state import Rollout


@click.group("rollout")
def rollout_command() -> None:
    """List, show, pause, resume, abort and roll back staged rollouts."""


@command("list", examples=["edgeq rollout list", "edgeq rollout list --json"])
def _list(app: App) -> None:
    """List the rollouts of this workspace, oldest first."""
    from edgeq.fleet.rollout import rollout_store, view

    rows, entries = [], []
    for one in rollout_store.read_all(app.workspace):
        if isinstance(one, RolloutDamaged):
            app.ui.warn(one.message)
            entries.append({"error": one.to_dict()})
            continue
        entry = view.summary(one)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in entry["counts"].items())
        stage = f"{entry['stage'] + 1}/{entry['stages']}"
        rows.append([entry["rollout"], entry["state"], stage, str(entry["devices"]), counts])
        entries.append(entry)
    app.ui.table(["rollout", "state", "stage", "devices", "outcomes"], rows)
    app.ui.emit("edgeq.rollouts/1", {"rollouts": entries})


@command("show", examples=["edgeq rollout show kws-1a2b3c4d-1", "edgeq rollout show kws-1a2b3c4d-1 --json"])
@click.argument("rollout")
def _show(app: App, rollout: str) -> None:
    """Show how ROLLOUT stands: each stage, each failing device. Asks no device."""
    from edgeq.fleet.rollout import rollout_store, view

    found = rollout_store.read(app.workspace, rollout)
    for line in view.lines(found):
        app.ui.line(line)
    app.ui.emit("edgeq.rollout/1", view.to_dict(found))


@command("pause", examples=["edgeq rollout pause kws-1a2b3c4d-1"])
@click.argument("rollout")
def _pause(app: App, rollout: str) -> None:
    """Pause ROLLOUT: devices that are worked on are finished, no other one is begun."""
    _interfere(app, rollout, "pause", "paused")


@command("abort", examples=["edgeq rollout abort kws-1a2b3c4d-1"])
@click.argument("rollout")
def _abort(app: App, rollout: str) -> None:
    """Abort ROLLOUT; what follows is what its --on-abort said."""
    _interfere(app, rollout, "abort", "aborted")


@command(
    "resume",
    examples=[
        "edgeq rollout resume kws-1a2b3c4d-1",
        "edgeq rollout resume kws-1a2b3c4d-1 --retry-failed",
        "edgeq rollout resume kws-1a2b3c4d-1 --accept",
    ],
)
@click.argument("rollout")
@click.option("--retry-failed", is_flag=True, help="Try the devices again that failed.")
@click.option("--accept", is_flag=True, help="Go on without the failed devices of the stage that paused it.")
@retries_option()
def _resume(app: App, rollout: str, retry_failed: bool, accept: bool, retries: int) -> None:
    """Go on with ROLLOUT, after a pause or after its controller died."""
    resume(app, rollout, retry_failed=retry_failed, accept=accept, retries=retries)


@command("rollback", examples=["edgeq rollout rollback kws-1a2b3c4d-1"])
@click.argument("rollout")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def _rollback(app: App, rollout: str, yes: bool) -> None:
    """Put back, on each device that ROLLOUT changed, what served there before it."""
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.rollout import rollout_store
    from edgeq.fleet.rollout.scheduler import to_restore
    from edgeq.fleet.rollout.state import State

    with rollout_store.reopen(app.workspace, rollout) as opened:
        count = len(to_restore(opened.rollout))
        if not app.ui.confirm(f"Put back {count} devices?", yes=yes):
            app.ui.say("nothing was changed")
            return
        if opened.rollout.state is not State.ROLLING_BACK:
            _append(opened, {"event": "rolling_back", "reason": "asked for"})
        drive(app, opened, Inventory.load(app.workspace))
    finish(app, opened.rollout, rolled_back=True)


for _command in (_list, _show, _pause, _abort, _resume, _rollback):
    rollout_command.add_command(_command)


def resume(app: App, rollout_id: str, *, retry_failed: bool, accept: bool, retries: int = USUAL) -> None:
    """Go on with a rollout."""
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.rollout import rollout_store

    with rollout_store.reopen(app.workspace, rollout_id) as opened:
        for event in _wake(opened.rollout, retry_failed=retry_failed, accept=accept):
            _append(opened, event)
        drive(app, opened, Inventory.load(app.workspace), retries=retries)
    finish(app, opened.rollout)


def _wake(rollout: Rollout, *, retry_failed: bool, accept: bool) -> list[dict[str, object]]:
    """Return the events that make a rollout go on.

    Raises:
        RolloutError: its state does not allow it (EQ825).
    """
    from edgeq.fleet.rollout.outcomes import FAILURES
    from edgeq.fleet.rollout.state import State

    name, state = rollout.terms.rollout, rollout.state
    if retry_failed:
        if state in (State.ROLLING_BACK, State.ROLLED_BACK):
            raise _not_now(name, f"is {state.value}", "begin a new rollout with `edgeq deploy --stages`")
        failed = [one for one, record in rollout.records.items() if record.outcome in FAILURES]
        return [{"event": "retried", "devices": failed}]
    if accept and (state is not State.PAUSED or rollout.gate is None):
        raise _not_now(name, f"is {state.value}, and no stage's end paused it", f"edgeq rollout show {name}")
    if state is State.PAUSED:
        return [{"event": "resumed", **({"accepted": rollout.gate} if accept else {})}]
    if state in (State.DONE, State.ROLLED_BACK):
        raise _not_now(name, f"is {state.value}: nothing is left to do", f"`edgeq rollout show {name}`")
    return []  # running, soaking, aborted, rolling back: its controller died


def _interfere(app: App, rollout_id: str, what: str, event: str) -> None:
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.rollout import rollout_store, view
    from edgeq.fleet.rollout.state import ALLOWED

    found = rollout_store.read(app.workspace, rollout_id)
    if found.state not in ALLOWED[event]:
        raise _not_now(rollout_id, f"is {found.state.value}", f"`edgeq rollout show {rollout_id}`")
    # First the wish, then the lease: a controller that ends between the two leaves it to us.
    rollout_store.ask(app.workspace, rollout_id, what)
    try:
        with rollout_store.reopen(app.workspace, rollout_id) as opened:
            if opened.rollout.state in ALLOWED[event]:
                _append(opened, {"event": event, "reason": "asked for"})
            if what == "abort":
                drive(app, opened, Inventory.load(app.workspace))
            found = opened.rollout
    except RolloutBusy:
        app.ui.line(f"{rollout_id}: its controller was asked; devices that it works on are finished first")
        app.ui.emit("edgeq.rollout/1", {**view.to_dict(found), "asked": what})
        return
    for line in view.lines(found):
        app.ui.line(line)
    end(app, view.to_dict(found), None)


def _append(opened: Opened, event: dict[str, object]) -> None:
    opened.rollout.apply(event)
    opened.journal.append([event])


def _not_now(name: str, problem: str, hint: str) -> RolloutError:
    return RolloutError(name, problem, hint=hint, code="EQ825")
