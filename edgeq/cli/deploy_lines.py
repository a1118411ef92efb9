"""A plan and a deploy as lines of text, for `edgeq plan` and `edgeq deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeq.cli.device_results import failure_line
from edgeq.cli.ui import App
from edgeq.units import format_size

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.fleet.deploy import DeployResult, DeviceDeploy
    from edgeq.fleet.plan import PlanStep

_MOST_NAMES = 20  # in one line


def print_plans(app: App, bundle: Bundle, entries: Sequence[DeviceDeploy]) -> None:
    """Print what changes on the devices that could be probed, once for devices on which the same changes.

    With `-v`, every step is a line, also those without a change.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        if entry.planned is not None:
            steps = entry.planned.plan.steps
            shown = steps if app.ui.verbosity > 0 else changes(steps)
            groups.setdefault(tuple(step.text for step in shown), []).append(entry.device)
    for lines, devices in groups.items():
        if lines:
            app.ui.line(f"{_names(devices)}: {bundle.model} {bundle.release[:12]}")
        for line in lines:
            app.ui.line(f"  {line}")


def changes(steps: Sequence[PlanStep]) -> Sequence[PlanStep]:
    """Return the steps of a plan that change something; the blobs to send are one step."""
    from edgeq.fleet.plan import Action, Component, PlanStep

    blobs = [step for step in steps if step.action is Action.CREATE and step.part is Component.BLOB]
    rest = [step for step in steps if step.action is not Action.SAME and step not in blobs]
    if len(blobs) > 1:
        size_bytes = sum(step.size_bytes for step in blobs)
        blobs = [
            PlanStep(
                action=Action.CREATE,
                part=Component.BLOB,
                subject=f"{len(blobs)} files",
                reason="not on the device",
                size_bytes=size_bytes,
            )
        ]
    return [*blobs, *rest]


def _names(devices: Sequence[str]) -> str:
    more = f" and {len(devices) - _MOST_NAMES} more" if len(devices) > _MOST_NAMES else ""
    return ", ".join(devices[:_MOST_NAMES]) + more


def recap(entry: DeviceDeploy, bundle: Bundle) -> str:
    """Return one line on what was done on a device, or would be."""
    if entry.error is not None:
        return failure_line(entry.device, entry.error)
    if entry.result is not None:
        return f"{entry.device}: ok, {_result(entry.result)}"
    if entry.planned is None or entry.planned.plan.is_empty:
        return f"{entry.device}: nothing to do, {bundle.release[:12]} serves already"
    return f"{entry.device}: would send {format_size(entry.planned.plan.send_bytes)}"


def _result(result: DeployResult) -> str:
    before = f" in place of {result.previous[:12]}" if result.previous else ""
    soaking = ", soaking" if result.state == "soaking" else ""
    sent = f"{format_size(result.sent_bytes)} in {result.duration_s:.1f} s"
    notes = list(result.rejected)
    if result.health.proof == "ran":
        notes.append("it loads and runs (benchmark_model), its outputs were not checked")
    return "; ".join([f"{result.release[:12]} serves{before}{soaking}, {sent}", *notes])
