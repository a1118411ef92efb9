"""`edgeq deploy`: show what a bundle changes on devices, and do it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.outcome import end
from edgeq.cli.ui import App, command
from edgeq.errors import EdgeqError
from edgeq.units import format_size

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.fleet.deploy import Planned
    from edgeq.fleet.many import Results
    from edgeq.values import Device


@command(
    "deploy",
    examples=[
        "edgeq deploy kws.eqb --to pi",
        "edgeq deploy kws.eqb --to label:site=lab --dry-run",
        "edgeq deploy kws.eqb --to all --yes --json",
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def deploy_command(app: App, bundle: Path, selectors: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Bring BUNDLE to devices: print what would change on each, then change it."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.deploy import plan_one
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.many import on_each

    content = read_bundle(bundle)
    devices = Inventory.load(app.workspace).select(selectors)
    plans = on_each(devices, lambda device: plan_one(device, content, workspace=app.workspace))
    for name, planned in plans.done.items():
        app.ui.line(f"{name}: {content.model} {content.release[:12]}")
        for step in planned.plan.steps:
            app.ui.line(f"  {step.text}")
    todo = [device for device in devices if device.name in plans.done and _has_work(plans.done[device.name])]
    if todo and not dry_run and app.ui.interactive:
        sends = sum(plans.done[device.name].plan.send_bytes for device in todo)
        question = f"Change {len(todo)} device(s), sending {format_size(sends)}?"
        if not app.ui.confirm(question, yes=yes):
            app.ui.say("nothing was changed")
            return
    report = _apply(app, content, todo, plans, dry_run=dry_run)
    _record(app, content, bundle, report, dry_run=dry_run)
    body = {
        "bundle": str(bundle),
        "model": content.model,
        "release": content.release,
        "dry_run": dry_run,
        "devices": report["devices"],
    }
    end(app, "edgeq.deploy/1", body, report["failed"], asked=len(devices), what="deploy")
    app.ui.next(f"edgeq bench {content.model} --on {devices[0].name}")


def _has_work(planned: Planned) -> bool:
    return not planned.plan.is_empty


def _apply(
    app: App, content: Bundle, todo: list[Device], plans: Results[Planned], *, dry_run: bool
) -> dict[str, Any]:
    from edgeq.fleet.deploy import deploy_one
    from edgeq.fleet.many import on_each

    failed: dict[str, EdgeqError] = dict(plans.failed)
    entries: dict[str, dict[str, Any]] = {}
    for name, planned in plans.done.items():
        entries[name] = {
            "device": name,
            "ok": True,
            "changed": False,
            "release": content.release,
            "steps": [step.to_dict() for step in planned.plan.steps],
            "send_bytes": planned.plan.send_bytes,
        }
        if planned.plan.is_empty:
            app.ui.line(f"{name}: nothing to do, {content.release[:12]} serves already")
    for device in todo if dry_run else ():
        # A plan that is blocked is an error also when nothing was to be done.
        try:
            plans.done[device.name].plan.check()
            app.ui.line(f"{device.name}: would send {format_size(entries[device.name]['send_bytes'])}")
        except EdgeqError as blocked:
            failed[device.name] = blocked
    if todo and not dry_run:
        sends = sum(plans.done[device.name].plan.send_bytes for device in todo)
        with app.ui.progress("sending", sends) as advance:
            outcomes = on_each(
                todo,
                lambda device: deploy_one(
                    device,
                    content,
                    workspace=app.workspace,
                    planned=plans.done[device.name],
                    on_event=lambda event: (
                        advance(int(event.message.get("size_bytes", 0)))
                        if event.message.get("event") == "sent"
                        else None
                    ),
                ),
            )
        failed.update(outcomes.failed)
        for name, outcome in outcomes.done.items():
            entries[name].update(outcome.to_dict())
            before = f", before {outcome.previous[:12]}" if outcome.previous else ""
            app.ui.line(
                f"{name}: ok, {outcome.release[:12]} serves{before}, "
                f"{format_size(outcome.sent_bytes)} in {outcome.duration_s:.1f} s"
            )
    for name, error in failed.items():
        entries[name] = {**entries.get(name, {"device": name}), "ok": False, "error": error.to_dict()}
        app.ui.line(f"{name}: failed, {error.message}")
    return {"devices": list(entries.values()), "failed": failed}


def _record(app: App, content: Bundle, path: Path, report: dict[str, Any], *, dry_run: bool) -> None:
    if dry_run:
        return
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        # The monitor judges this release's windows against the reference that the bundle carries.
        store.put_release(content.release, content.manifest, content.reference)
        body = {"bundle": str(path), "release": content.release, "devices": report["devices"]}
        store.record_run("deploy", content.model, body)
