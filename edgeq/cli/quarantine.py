"""`edgeq quarantine`: list, show, drop and retry the telemetry records that were refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.store import QuarantineRecord, Store

_device_option = click.option(
    "--device", metavar="NAME", help="The records of this device.", shell_complete=completing.devices
)
_all_option = click.option("--all", "everything", is_flag=True, help="All records.")


@click.group("quarantine", cls=CommandGroup)
def quarantine_command() -> None:
    """Look at telemetry records that were refused; drop them, or check them again."""


@command("list", examples=["edgeq quarantine list", "edgeq quarantine list pi --json"])
@click.argument("device", required=False, shell_complete=completing.devices)
def _list(app: App, device: str | None) -> None:
    """List the refused records, of DEVICE if it is given, with the reasons."""
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        records = store.quarantine(device)
    if records:
        rows = [[str(each.id), each.device, _time(each.received_ns), each.reason] for each in records]
        app.ui.table(["record", "device", "when (UTC)", "reason"], rows)
    else:
        app.ui.say("the quarantine is empty" if device is None else f"{device}: no record is in quarantine")
    app.ui.emit("edgeq.quarantine.list/1", {"records": [_entry(each) for each in records]})
    if records:
        app.ui.next("quarantine", "show", str(records[0].id))


@command("show", examples=["edgeq quarantine show 3", "edgeq quarantine show 3 --json"])
@click.argument("number", type=click.IntRange(1, 2**63 - 1), metavar="RECORD")
def _show(app: App, number: int) -> None:
    """Show RECORD as the device sent it, and why it was refused."""
    from edgeq.collector import select_quarantined
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        (record,) = select_quarantined(store, [number])
    app.ui.line(f"{record.id}  {record.device}  {_time(record.received_ns)}  {record.reason}")
    app.ui.line(json.dumps(record.body, sort_keys=True))
    app.ui.emit("edgeq.quarantine.show/1", {**_entry(record), "body": record.body})


@command(
    "drop",
    examples=[
        "edgeq quarantine drop 3 4",
        "edgeq quarantine drop --device pi",
        "edgeq quarantine drop --all -y",
    ],
)
@click.argument("numbers", type=click.IntRange(1, 2**63 - 1), nargs=-1, metavar="[RECORD]...")
@_device_option
@_all_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def _drop(app: App, numbers: tuple[int, ...], device: str | None, everything: bool, yes: bool) -> None:
    """Delete refused records for good; the device has deleted its copy already."""
    from edgeq.collector import drop_quarantined
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        records = _selected(store, numbers, device, everything)
        if records and not app.ui.confirm(f"Delete {len(records)} records for good?", yes=yes):
            raise click.Abort
        dropped = drop_quarantined(store, records)
    app.ui.line(f"{dropped} records deleted")
    app.ui.emit("edgeq.quarantine.drop/1", {"dropped": dropped})


@command("retry", examples=["edgeq quarantine retry 3", "edgeq quarantine retry --all --json"])
@click.argument("numbers", type=click.IntRange(1, 2**63 - 1), nargs=-1, metavar="[RECORD]...")
@_device_option
@_all_option
def _retry(app: App, numbers: tuple[int, ...], device: str | None, everything: bool) -> None:
    """Check refused records by the rules of this version; valid ones become windows of the store."""
    from edgeq.collector import retry_quarantined
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        outcomes = retry_quarantined(store, _selected(store, numbers, device, everything))
    refused = [each for each in outcomes if each.reason is not None]
    app.ui.line(f"{len(outcomes) - len(refused)} records stored, {len(refused)} still refused")
    for each in refused:
        app.ui.line(f"  {each.record.id}  {each.record.device}: {each.reason}")
    app.ui.emit(
        "edgeq.quarantine.retry/1",
        {
            "stored": len(outcomes) - len(refused),
            "refused": [{**_entry(each.record), "reason": each.reason} for each in refused],
        },
    )
    app.ui.next("monitor")


def _selected(
    store: Store, numbers: tuple[int, ...], device: str | None, everything: bool
) -> list[QuarantineRecord]:
    from edgeq.collector import select_quarantined

    if bool(numbers) + (device is not None) + everything != 1:
        raise UsageError(
            "records",
            "name records, or use --device or --all",
            hint="`edgeq quarantine list` shows the records",
        )
    return select_quarantined(store, numbers, device)


def _entry(record: QuarantineRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "device": record.device,
        "reason": record.reason,
        "received_ns": record.received_ns,
    }


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


for _one in (_list, _show, _drop, _retry):
    quarantine_command.add_command(_one)
