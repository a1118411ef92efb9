"""`edgeq status`: show the releases that devices serve, and what their last telemetry windows say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.device_results import failure_line, finish
from edgeq.cli.ui import App, command
from edgeq.errors import StoreError
from edgeq.units import format_size

if TYPE_CHECKING:
    from edgeq.fleet.responses import DeviceStatus, ModelStatus
    from edgeq.monitor import FieldSummary
    from edgeq.values import Device

# Windows of a device that are summed up: at one window a minute, the last hour.
_LAST_WINDOWS = 60


@command("status", examples=["edgeq status", "edgeq status pi --json", "edgeq status label:site=lab"])
@click.argument("names", nargs=-1, shell_complete=completing.selectors)
@retries_option()
def status_command(app: App, names: tuple[str, ...], retries: int) -> None:
    """Show what devices NAMES (or label:KEY=VALUE) serve, and their last collected telemetry.

    Without NAMES, all devices of the workspace are shown. `edgeq collect` brings the telemetry up to date.
    """
    from edgeq.fleet.operations import status
    from edgeq.fleet.parallel import on_each
    from edgeq.fleet.trust import summary

    inventory = app.inventory()
    devices = inventory.select(names) if names else inventory.devices
    policy = retry_policy(app, retries)
    results = on_each(devices, lambda device: status(device, retry_policy=policy))
    field = _field(app, devices)
    rows: list[list[str]] = []
    entries: list[dict[str, Any]] = []
    for device in devices:
        telemetry = [each.to_json() for each in field.get(device.name, ())]
        answer = results.done.get(device.name)
        if answer is None:
            error = results.failed[device.name]
            rows.append([device.name, "-", "-", "-", f"failed: {error.reported_code}", "-", "-"])
            entries.append({"device": device.name, "ok": False, "error": error.to_dict(), "field": telemetry})
            continue
        rows += _rows(device.name, answer)
        entries.append({"device": device.name, "ok": True, **answer.document, "field": telemetry})
    app.ui.table(["device", "model", "release", "previous", "state", "since", "free"], rows)
    for name, error in results.failed.items() if len(devices) > 1 else ():
        app.ui.error(error.reported_code, failure_line(name, error))
    for name, answer in results.done.items():
        if answer.trust is not None:
            app.ui.line(f"{name}: {summary(answer.trust)}")
        for problem in _problems(answer):
            app.ui.warn(f"{name}: {problem}")
    for name, summaries in field.items():
        for each in summaries:
            app.ui.line(f"{name}: {each.model} {each.release[:12]}, last windows: {each.line}")
            if each.problem is not None:
                app.ui.warn(f"{name}: {each.model}: {each.problem}")
    if not devices:
        app.ui.warn(f"no device is enrolled in the workspace {app.workspace}")
        app.ui.next("devices", "add", "NAME", "--host", "HOST")
    body = {"devices": entries}
    finish(app, "edgeq.status/1", body, results.failed, device_count=len(devices), what="status")


def _field(app: App, devices: Sequence[Device]) -> dict[str, list[FieldSummary]]:
    """Return the summaries of each device's last windows; a workspace without a store has none."""
    from edgeq.monitor import field_summaries
    from edgeq.store import Store

    if not (app.workspace / ".edgeq" / "store.db").exists():
        return {}
    try:
        with Store.open(app.workspace) as store:
            return {
                device.name: field_summaries(store, device=device.name, newest=_LAST_WINDOWS)
                for device in devices
            }
    except StoreError as error:
        # The devices have answered: a damaged store must not hide that.
        app.ui.warn(f"telemetry is not shown: error[{error.reported_code}]: {error.message}")
        return {}


def _problems(status: DeviceStatus) -> Iterator[str]:
    for model, entry in status.models.items():
        if entry.current in entry.damaged:
            yield (
                f"{model}: files of {entry.current[:12]}, which serves, are damaged; "
                "`edgeq deploy BUNDLE --to DEVICE` sends them again"
            )
        if entry.state == "rolled_back" and entry.current:
            why = f": {entry.reason}" if entry.reason else ""
            yield f"{model}: the last activation was rolled back{why}; {entry.current[:12]} serves"
        if entry.recorder.problem:
            yield f"{model}: telemetry is not stored: {entry.recorder.problem}"


def _rows(name: str, status: DeviceStatus) -> list[list[str]]:
    free = format_size(status.free_bytes)
    if not status.models:
        return [[name, "-", "-", "-", "empty", "-", free]]
    return [
        [
            name,
            model,
            (entry.current or "-")[:12],
            (entry.previous or "-")[:12],
            _state(entry),
            _when(entry.since_ns),
            free,
        ]
        for model, entry in sorted(status.models.items())
    ]


def _state(entry: ModelStatus) -> str:
    words = [entry.state or "-"]
    if entry.in_force:
        words.append("split")
    if entry.proof == "ran":
        words.append("outputs not checked")
    return ", ".join(words)


def _when(since_ns: int | None) -> str:
    # The device's clock may be wrong; the time is shown as the device reports it.
    return datetime.fromtimestamp(since_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M") if since_ns else "-"
