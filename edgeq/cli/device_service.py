"""`edgeq devices service`: let a device settle interrupted releases, and serve, from its start on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError

_KINDS = ("auto", "systemd-user", "systemd-system", "termux-boot", "plain")


@command(
    "service",
    examples=[
        "edgeq devices service pi --enable",
        "edgeq devices service pi --enable --serve kws --port 8080",
        "edgeq devices service pi --enable --kind systemd-system",
        "edgeq devices service pi --status --json",
        "edgeq devices service pi --disable",
    ],
)
@click.argument("name")
@click.option("--enable", is_flag=True, help="Install it, and start it once.")
@click.option("--disable", is_flag=True, help="Remove it, and end what it serves.")
@click.option("--status", is_flag=True, help="Show how it is.  [default]")
@click.option("--kind", type=click.Choice(_KINDS), help="What starts it.  [default: auto]")
@click.option("--serve", "models", multiple=True, metavar="MODEL", help="Serve it over HTTP; repeatable.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Of the device's 127.0.0.1.  [default: a unix socket in the agent's folder]",
)
@retries_option()
def service_command(
    app: App,
    name: str,
    enable: bool,
    disable: bool,
    status: bool,
    kind: str | None,
    models: tuple[str, ...],
    port: int | None,
    retries: int,
) -> None:
    """Let a device settle what a restart interrupts, by itself, and serve models from its start on.

    A release whose trial a restart interrupts goes back when the device has started, without a call.
    """
    from edgeq.fleet import autostart
    from edgeq.fleet.inventory import Inventory

    device = Inventory.load(app.workspace).get(name)
    if enable + disable + status > 1:
        raise click.UsageError("--enable, --disable and --status: one at a time")
    if not enable and (kind or models or port):
        raise UsageError(
            "edgeq devices service",
            "--kind, --serve and --port belong to --enable",
            hint=f"edgeq devices service {name} --enable ...",
        )
    if port is not None and not models:
        raise UsageError("--port", "there is nothing to serve on it", hint="add --serve MODEL")
    retry = retry_of(app, retries)
    if enable:
        chosen, served = autostart.StartKind(kind or "auto"), list(dict.fromkeys(models))
        answer = autostart.enable(device, kind=chosen, models=served, port=port, retry=retry)
    elif disable:
        answer = autostart.disable(device, retry=retry)
    else:
        answer = autostart.status(device, retry=retry)
    for line in lines(answer):
        app.ui.line(f"{name}: {line}")
    app.ui.emit("edgeq.devices.service/1", {"device": name, **answer})
    if not answer["enabled"]:
        app.ui.next(f"edgeq devices service {name} --enable")


def lines(answer: Mapping[str, Any]) -> list[str]:
    """Return what people read of an answer."""
    if not answer["enabled"]:
        return [f"nothing starts with the device; it could be {answer['choice']}"]
    starts = {True: "starts with the device", False: "does NOT start with the device", None: "not seen yet"}
    found = [f"{answer['kind']}: {starts[answer['at_boot']]}{_because(answer['why'])}"]
    for unit in answer["units"]:
        state = f"{unit['active']} ({unit['sub']}), result {unit['result']}, {unit['restarts']} restarts"
        found.append(f"{unit['unit']}: {unit['problem'] or state}")
    serving = answer.get("serving")
    if answer["models"]:
        found.append(f"serves {', '.join(answer['models'])}{_because((serving or {}).get('problem'))}")
    return [*found, _last(answer)]


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""


def _last(answer: Mapping[str, Any]) -> str:
    last = answer["last"]
    if last is None:
        return "it never ran"
    when = "in this boot" if answer["ran_in_this_boot"] else "in an earlier boot"
    how = "settled everything" if last["ok"] else f"failed: {last['problem']}"
    moved = [f"{name} {told['state']}" for name, told in sorted(last["models"].items()) if told["changed"]]
    return f"last run {when}, {last['since_boot_s']:.0f} s after its start: {how}{_because(', '.join(moved))}"
