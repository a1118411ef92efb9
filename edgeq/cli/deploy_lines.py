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


def print_plans(app: App, bundle: Bundle, entries: Sequence[DeviceDeploy]) -> None:
    """Print the plan of each device that could be probed."""
    for entry in entries:
        if entry.planned is None:
            continue
        app.ui.line(f"{entry.device}: {bundle.model} {bundle.release[:12]}")
        for step in entry.planned.plan.steps:
            app.ui.line(f"  {step.text}")


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
    before = f", before {result.previous[:12]}" if result.previous else ""
    soaking = ", soaking" if result.state == "soaking" else ""
    sent = f"{format_size(result.sent_bytes)} in {result.duration_s:.1f} s"
    notes = list(result.rejected)
    if result.health.proof == "ran":
        notes.append("it loads and runs (benchmark_model), its outputs were not checked")
    return "; ".join([f"{result.release[:12]} serves{soaking}{before}, {sent}", *notes])
