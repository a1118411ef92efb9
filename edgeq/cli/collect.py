"""`edgeq collect`: pull telemetry windows from devices into the store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.device_results import failure_line, finish
from edgeq.cli.options import Number
from edgeq.cli.ui import App, command
from edgeq.errors import EdgeqError, UsageError

if TYPE_CHECKING:
    from edgeq.collector import Collected
    from edgeq.collector.pull import Owners
    from edgeq.values import Device


@command(
    "collect",
    examples=["edgeq collect pi", "edgeq collect --all --watch 60", "edgeq collect label:site=lab --json"],
)
@click.argument("names", nargs=-1, shell_complete=completing.selectors)
@click.option("--all", "everything", is_flag=True, help="Collect from all devices.")
@click.option(
    "--watch",
    "watch_s",
    type=Number(0.1, 86_400),
    metavar="SECONDS",
    help="Repeat every SECONDS until Ctrl-C.",
)
@retries_option()
def collect_command(
    app: App, names: tuple[str, ...], everything: bool, watch_s: float | None, retries: int
) -> None:
    """Pull telemetry windows from devices NAMES (or label:KEY=VALUE); each is stored exactly once."""

    if bool(names) == everything:
        raise UsageError("devices", "name devices, or use --all", hint="run `edgeq devices list`")
    inventory = app.inventory()
    devices = inventory.select(["all"] if everything else names)
    owners: dict[str, set[str]] = {}
    for device in inventory.devices:
        if device.device_id:
            owners.setdefault(device.device_id, set()).add(device.name)
    while True:
        done, failed = _round(app, devices, owners, retries)
        _show(app, done, failed, several=len(devices) > 1 or watch_s is not None)
        if watch_s is None:
            break
        app.ui.emit("edgeq.collect/1", _document(done, failed))
        app.ui.flush()
        time.sleep(watch_s)
    body = _document(done, failed)
    finish(app, "edgeq.collect/1", body, failed, device_count=len(devices), what="collect")
    app.ui.next("monitor")


def _round(
    app: App, devices: Sequence[Device], owners: Owners, retries: int
) -> tuple[Mapping[str, Collected], Mapping[str, EdgeqError]]:
    from edgeq.collector import collect
    from edgeq.fleet.connect import ask
    from edgeq.fleet.parallel import on_each
    from edgeq.store import Store

    policy = retry_policy(app, retries)
    with Store.open(app.workspace) as store:

        def pull(device: Device) -> Collected:
            # A retry gets unacknowledged windows again; the store recognises those that it has.
            return ask(
                device,
                lambda client: collect(client, device.name, store=store, owners=owners),
                repeatable=True,
                retry_policy=policy,
            )

        results = on_each(devices, pull)
    return results.done, results.failed


def _show(
    app: App,
    done: Mapping[str, Collected],
    failed: Mapping[str, EdgeqError],
    *,
    several: bool,
) -> None:
    rows = []
    for name, collected in done.items():
        rows.append(
            [
                name,
                str(collected.new),
                str(collected.duplicates),
                str(collected.refused),
                str(collected.pending),
            ]
        )
    if rows:
        app.ui.table(["device", "new", "duplicate", "refused", "left"], rows)
    for name, collected in done.items():
        for reason in collected.reasons:
            app.ui.warn(f"{name}: a record was quarantined: {reason}")
        if collected.reasons:
            app.ui.say(f"{name}: `edgeq quarantine list {name}` shows the records")
    for name, error in failed.items() if several else ():
        app.ui.error(error.reported_code, failure_line(name, error))


def _document(done: Mapping[str, Collected], failed: Mapping[str, EdgeqError]) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [{"ok": True, **asdict(collected)} for collected in done.values()]
    entries += [{"device": name, "ok": False, "error": error.to_dict()} for name, error in failed.items()]
    return {"devices": entries, "new": sum(collected.new for collected in done.values())}
