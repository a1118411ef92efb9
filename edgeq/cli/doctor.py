"""`edgeq doctor`: check this machine and its devices, and suggest fixes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.hints import fitting
from edgeq.cli.ui import App, command
from edgeq.errors import ExitStatus

if TYPE_CHECKING:
    from edgeq.fleet.facts import AutostartFact, Facts
    from edgeq.fleet.responses import TrustSummary
    from edgeq.values import Device


@command("doctor", examples=["edgeq doctor", "edgeq doctor pi-4 --json", "edgeq doctor --local"])
@click.argument("devices", nargs=-1, shell_complete=completing.devices)
@click.option("--local", is_flag=True, help="Check only this machine.")
@click.pass_context
def doctor_command(ctx: click.Context, app: App, devices: tuple[str, ...], local: bool) -> None:
    """Check this machine and DEVICES (default: all enrolled devices), and suggest fixes."""
    from edgeq.doctor import Health, examine_device, examine_host, examine_kernels, examine_trust, worst

    checks = examine_host(app.workspace)
    inventory = app.inventory()
    chosen = [] if local else [inventory.get(name) for name in devices] or list(inventory.devices)
    trusts: dict[str, TrustSummary | None] = {}
    starts: dict[str, AutostartFact] = {}
    reported_by: dict[str, Facts] = {}

    def facts(device: Device) -> Facts:
        from edgeq.fleet.connect import open_agent
        from edgeq.fleet.facts import AutostartFact
        from edgeq.fleet.operations import read_status

        with open_agent(device) as client:
            reported = reported_by[device.name] = client.facts()
            trusts[device.name] = read_status(client).trust
            if reported.service is not None:
                request = {"action": "status"}
                starts[device.name] = client.request(AutostartFact, "service", request)
            return reported

    for device in chosen:
        checks += examine_device(device, facts, starts=starts)
        checks += examine_trust(device, trusts.get(device.name))
        if (reported := reported_by.get(device.name)) is not None:
            checks.append(examine_kernels(device, reported, app.workspace))
    words, names = ("doctor", *devices), inventory.names
    checks = [
        check
        if check.fix is None
        else replace(check, fix=fitting(check.fix, words=words, devices=names, code=None))
        for check in checks
    ]
    app.ui.table(
        ["where", "check", "", "result"],
        [[check.subject, check.name, check.health.value, check.detail] for check in checks],
    )
    verdict = worst(checks)
    app.ui.emit("edgeq.doctor/1", {"health": verdict.value, "checks": [asdict(check) for check in checks]})
    for check in checks:
        if check.fix and check.health is Health.FAIL:
            app.ui.error(None, f"{check.subject} {check.name}: {check.fix}")
        elif check.fix:
            app.ui.warn(f"{check.subject} {check.name}: {check.fix}")
    if verdict is Health.FAIL:
        ctx.exit(int(ExitStatus.FAILED))
