"""`edgeq deploy`: show what a bundle changes on devices, and do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.outcome import end, recap_of
from edgeq.cli.retries import PATIENT, USUAL, retries_option, retry_of
from edgeq.cli.ui import App, command
from edgeq.errors import EdgeqError, UsageError
from edgeq.units import format_size, parse_duration

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.fleet.apply import Progress
    from edgeq.fleet.deploy import Outcome, Planned
    from edgeq.fleet.parallel import Results
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
@click.option("--to", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--stages", help="Reach them in stages: 1,10%,50%,100%, label:KEY=VALUE, or all.")
@click.option("--soak", help="How long it serves on trial: 10m; failures take it back. [default: 0s]")
@click.option(
    "--abort", help="When to stop: failed>5%,silent>10%,min=5. [with --stages; default: any>10%,min=5]"
)
@click.option(
    "--on-abort", type=click.Choice(["stop", "rollback"]), help="What then. [with --stages; default: stop]"
)
@click.option("--at-once", type=click.IntRange(1, 256), help="Devices at a time. [with --stages; default: 8]")
@click.option(
    "--retry-failed", is_flag=True, help="Go on with the rollout of this bundle: its failed devices."
)
@click.option("--retry", is_flag=True, help="Try also what failed too often on a device (EQ520).")
@retries_option(None, f"{PATIENT}; {USUAL} with --stages")
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
    retry: bool,
    retries: int | None,
) -> None:
    """Bring BUNDLE to devices: print what would change on each, then change it; at once or in stages."""
    from edgeq.cli.rollout.start import Asked, deploy_in_stages

    asked = Asked(
        stages=stages,
        soak=soak,
        abort=abort,
        on_abort=on_abort,
        at_once=at_once,
        retry_failed=retry_failed,
        retries=USUAL if retries is None else retries,
    )
    if asked.any and retry:
        raise UsageError(
            "--retry",
            "belongs to a deploy to all at once",
            hint="deploy to the devices that refuse it: `edgeq deploy BUNDLE --to DEVICE --retry`",
        )
    if asked.any:
        deploy_in_stages(app, bundle, selectors, asked, dry_run=dry_run, yes=yes)
    else:
        how = How(
            soak_s=parse_duration(soak, subject="--soak") / 1e9 if soak else 0.0,
            retry=retry,
            retries=PATIENT if retries is None else retries,
        )
        _deploy(app, bundle, selectors, how, dry_run=dry_run, yes=yes)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a deploy to all at once goes about it.

    Attributes:
        soak_s: how long the release serves on trial.
        retry: whether what a device refuses (EQ520) is tried again.
        retries: how often it begins again when the way to a device fails.
    """

    soak_s: float
    retry: bool
    retries: int


def _deploy(
    app: App, bundle: Path, selectors: tuple[str, ...], how: How, *, dry_run: bool, yes: bool
) -> None:
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.deploy import plan_one
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.parallel import on_each

    content = read_bundle(bundle)
    devices = Inventory.load(app.workspace).select(selectors)
    again = retry_of(app, how.retries)
    plans = on_each(devices, lambda device: plan_one(device, content, workspace=app.workspace, retry=again))
    failed = {**plans.failed, **show(app, content, plans.done)}
    todo = [
        device
        for device in devices
        if device.name not in failed and not plans.done[device.name].plan.is_empty
    ]
    outcomes: Mapping[str, Outcome] = {}
    if todo and not dry_run:
        if not _agreed(app, todo, plans.done, yes=yes):
            app.ui.say("nothing was changed")
            return
        applied = _apply(app, content, todo, plans.done, how)
        outcomes, failed = applied.done, {**failed, **applied.failed}
    for device in devices:
        app.ui.line(recap(device.name, plans.done, outcomes, failed, content))
    entries = [entry_of(device.name, plans.done, outcomes, failed) for device in devices]
    if not dry_run:
        _record(app, content, bundle, entries)
    body = {
        "bundle": str(bundle),
        "model": content.model,
        "release": content.release,
        "dry_run": dry_run,
        "devices": entries,
    }
    end(app, "edgeq.deploy/1", body, failed, asked=len(devices), what="deploy")
    app.ui.next(f"edgeq bench {content.model} --on {devices[0].name}")


def show(app: App, content: Bundle, plans: Mapping[str, Planned]) -> dict[str, EdgeqError]:
    """Print the plans; return the errors of those that are blocked."""
    blocked: dict[str, EdgeqError] = {}
    for name, planned in plans.items():
        app.ui.line(f"{name}: {content.model} {content.release[:12]}")
        for step in planned.plan.steps:
            app.ui.line(f"  {step.text}")
        try:
            planned.plan.check()
        except EdgeqError as error:
            blocked[name] = error
    return blocked


def _agreed(app: App, todo: Sequence[Device], plans: Mapping[str, Planned], *, yes: bool) -> bool:
    names = ", ".join(device.name for device in todo)
    sends = sum(plans[device.name].plan.send_bytes for device in todo)
    return app.ui.confirm(f"Change {names}, sending {format_size(sends)}?", yes=yes)


def _apply(
    app: App, content: Bundle, todo: Sequence[Device], plans: Mapping[str, Planned], how: How
) -> Results[Outcome]:
    from edgeq.fleet.deploy import deploy_one
    from edgeq.fleet.parallel import on_each

    again = retry_of(app, how.retries)
    sends = sum(plans[device.name].plan.send_bytes for device in todo)
    with app.ui.progress("sending", sends) as advance:

        def tell(event: Progress) -> None:
            if event.message.get("event") == "sent":
                advance(int(event.message["size_bytes"]))
            else:
                app.ui.detail(f"{event.device}: {event.step.part.value} {event.message.get('step', '')}")

        return on_each(
            todo,
            lambda device: deploy_one(
                device,
                content,
                workspace=app.workspace,
                planned=plans[device.name],
                on_event=tell,
                backoff=again.backoff,
                on_retry=again.on_retry,
                soak_s=how.soak_s,
                retry=how.retry,
            ),
        )


def recap(
    name: str,
    plans: Mapping[str, Planned],
    outcomes: Mapping[str, Outcome],
    failed: Mapping[str, EdgeqError],
    content: Bundle,
) -> str:
    if name in failed:
        return recap_of(name, failed[name])
    if name in outcomes:
        done = outcomes[name]
        before = f", before {done.previous[:12]}" if done.previous else ""
        trial = " on trial" if done.state == "soaking" else ""
        sent = f"{format_size(done.sent_bytes)} in {done.duration_s:.1f} s"
        instead = "".join(f"; {passed}" for passed in done.passed)
        if done.health.get("proof") == "ran":
            instead += "; it was seen to load and run (benchmark_model), its outputs were not checked"
        return f"{name}: ok, {done.release[:12]} serves{trial}{before}, {sent}{instead}"
    if plans[name].plan.is_empty:
        return f"{name}: nothing to do, {content.release[:12]} serves already"
    return f"{name}: would send {format_size(plans[name].plan.send_bytes)}"


def entry_of(
    name: str,
    plans: Mapping[str, Planned],
    outcomes: Mapping[str, Outcome],
    failed: Mapping[str, EdgeqError],
) -> dict[str, Any]:
    entry: dict[str, Any] = {"device": name, "ok": name not in failed, "changed": False, "sent_bytes": 0}
    if name in plans:
        plan = plans[name].plan
        entry.update(steps=[step.to_dict() for step in plan.steps], send_bytes=plan.send_bytes)
    if name in outcomes:
        entry.update(outcomes[name].to_dict())
    if name in failed:
        entry["error"] = failed[name].to_dict()
    return entry


def _record(app: App, content: Bundle, path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        # The monitor judges this release's windows against the reference that the bundle carries.
        store.put_release(content.release, content.manifest, content.reference)
        body = {"bundle": str(path), "release": content.release, "devices": list(entries)}
        store.record_run("deploy", content.model, body)
