"""`edgeq status`: show what devices run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from edgeq.cli.outcome import end
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command
from edgeq.units import format_size


@command("status", examples=["edgeq status", "edgeq status pi --json", "edgeq status label:site=lab"])
@click.argument("names", nargs=-1)
@retries_option()
def status_command(app: App, names: tuple[str, ...], retries: int) -> None:
    """Show the releases that devices serve (all enrolled ones, when none is NAMEd)."""
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.operations import status
    from edgeq.fleet.parallel import on_each
    from edgeq.fleet.trust import summary

    inventory = Inventory.load(app.workspace)
    devices = inventory.select(names) if names else inventory.devices
    retry = retry_of(app, retries)
    results = on_each(devices, lambda device: status(device, retry=retry))
    rows: list[list[str]] = []
    entries: list[dict[str, Any]] = []
    for device in devices:
        answer = results.done.get(device.name)
        if answer is None:
            error = results.failed[device.name]
            rows.append([device.name, "-", "-", "-", type(error).__name__, "-", "-"])
            entries.append({"device": device.name, "ok": False, "error": error.to_dict()})
            continue
        rows += _rows(device.name, answer)
        entries.append({"device": device.name, "ok": True, **answer})
    app.ui.table(["device", "model", "release", "previous", "state", "since", "free"], rows)
    for name, answer in results.done.items():
        if "trust" in answer:
            app.ui.line(f"{name}: {summary(answer['trust'])}")
    if not devices:
        app.ui.warn(f"no device is enrolled in the workspace {app.workspace}")
        app.ui.next("edgeq devices add NAME --host HOST")
    end(app, "edgeq.status/1", {"devices": entries}, results.failed, asked=len(devices), what="status")


def _rows(name: str, answer: dict[str, Any]) -> list[list[str]]:
    free = format_size(answer.get("free_bytes", 0))
    models = answer.get("models", {})
    if not models:
        return [[name, "-", "-", "-", "empty", "-", free]]
    return [
        [
            name,
            model,
            str(entry.get("current") or "-")[:12],
            str(entry.get("previous") or "-")[:12],
            _state(entry),
            _when(entry.get("since_ns")),
            free,
        ]
        for model, entry in sorted(models.items())
    ]


def _state(entry: dict[str, Any]) -> str:
    words = [str(entry.get("state") or "-")]
    if entry.get("in_force"):
        words.append("split")
    if entry.get("proof") == "ran":
        words.append("outputs not checked")
    return ", ".join(words)


def _when(since_ns: int | None) -> str:
    # The device's clock said so; it may be wrong, and is shown as it is.
    return datetime.fromtimestamp(since_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M") if since_ns else "-"
