"""`edgeq devices service`: install, show or remove the boot service of a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeq.cli import completing
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.options import Number
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.fleet.autostart import Autostart

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = ("auto", "systemd-user", "systemd-system", "termux-boot", "plain")


_SERVE_OPTIONS = (
    click.option("--socket", metavar="PATH", help="Absolute path of a unix socket on the device."),
    click.option(
        "--socket-mode", type=click.Choice(("600", "660", "666")), help="Who may connect to --socket."
    ),
    click.option("--socket-group", metavar="GROUP", help="Group of --socket; implies 660."),
    click.option("--host", type=click.Choice(("127.0.0.1", "::1")), help="Address of --port."),
    click.option(
        "--threads",
        type=click.IntRange(1, 256),
        metavar="N",
        help="Threads of each interpreter.  [default: 1]",
    ),
    click.option(
        "--deadline",
        type=Number(0, 86_400, min_open=True),
        metavar="SECONDS",
        help="Longer requests fail with 504.",
    ),
    click.option(
        "--max-body",
        type=click.IntRange(1, 2**40),
        metavar="BYTES",
        help="Largest body of a request.  [default: 33554432]",
    ),
    click.option(
        "--max-requests",
        type=click.IntRange(1, 100_000),
        metavar="N",
        help="Requests that run at the same time.  [default: 16]",
    ),
    click.option(
        "--sessions",
        type=click.IntRange(1, 100_000),
        metavar="N",
        help="Sequences of a model that may be open.  [default: 16]",
    ),
    click.option(
        "--session-idle",
        type=Number(0, 31_536_000, min_open=True),
        metavar="SECONDS",
        help="A sequence without a request ends after this time.  [default: 60]",
    ),
    click.option(
        "--on-swap",
        type=click.Choice(("finish", "end", "restart")),
        help="What happens to a sequence whose release is replaced.",
    ),
    click.option(
        "--session-finish",
        type=Number(0, 31_536_000),
        metavar="SECONDS",
        help="How long `finish` lets a sequence go on.  [default: 60]",
    ),
    click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Web origin that may use it."),
    click.option("--no-telemetry", is_flag=True, help="Record no telemetry."),
)


def _serve_options(function: F) -> F:
    """Add the options of the model server, which `edgeq-agent serve` has too."""
    for option in reversed(_SERVE_OPTIONS):
        function = option(function)
    return function


@command(
    "service",
    examples=[
        "edgeq devices service pi --enable",
        "edgeq devices service pi --enable --serve kws --port 8080",
        "edgeq devices service pi --enable --serve kws --socket /run/edgeq/serve.sock --socket-mode 666",
        "edgeq devices service pi --enable --kind systemd-system",
        "edgeq devices service pi --status --json",
        "edgeq devices service pi --disable",
    ],
)
@click.argument("name", shell_complete=completing.devices)
@click.option("--enable", is_flag=True, help="Install the service and start it once.")
@click.option("--disable", is_flag=True, help="Remove the service and stop its model server.")
@click.option("--status", is_flag=True, help="Show the service.  [default]")
@click.option("--kind", type=click.Choice(_KINDS), help="What starts it at boot.  [default: auto]")
@click.option("--serve", "models", multiple=True, metavar="MODEL", help="Serve it over HTTP; repeatable.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port on the device's 127.0.0.1.  [default: a unix socket in the agent's folder]",
)
@click.option(
    "--token-file",
    metavar="PATH",
    help="File on the device; requests must send its content as a bearer token.",
)
@_serve_options
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
    token_file: str | None,
    retries: int,
    **serve: Any,
) -> None:
    """Install a boot service that finishes interrupted deployments and optionally serves models.

    Without it, a release whose soak a restart interrupted is rolled back only at the next call of the agent.
    """
    from edgeq.fleet import autostart

    device = app.inventory().get(name)
    if enable + disable + status > 1:
        raise click.UsageError("--enable, --disable and --status exclude each other")
    options = autostart.ServeOptions(**serve)
    served_with = [name for name, value in (("--port", port), ("--token-file", token_file)) if value]
    served_with += ["--" + each.replace("unix", "socket") for each in options.by_name]
    if not enable and (kind or models or served_with):
        raise UsageError(
            "edgeq devices service",
            f"{served_with[0] if served_with else '--serve' if models else '--kind'} requires --enable",
            hint=f"add --enable: `edgeq devices service {name} --enable`",
        )
    if served_with and not models:
        raise UsageError(served_with[0], "requires --serve", hint="add --serve MODEL")
    policy = retry_policy(app, retries)
    if enable:
        start_kind, served = autostart.StartKind(kind or "auto"), list(dict.fromkeys(models))
        service = autostart.enable(
            device,
            kind=start_kind,
            models=served,
            port=port,
            token_file=token_file,
            options=options,
            retry_policy=policy,
        )
    elif disable:
        service = autostart.disable(device, retry_policy=policy)
    else:
        service = autostart.status(device, retry_policy=policy)
    for line in lines(service):
        app.ui.line(f"{name}: {line}")
    app.ui.emit("edgeq.devices.service/1", {"device": name, **service.document})
    if not service.enabled and not disable:
        app.ui.next("devices", "service", name, "--enable")


def lines(service: Autostart) -> list[str]:
    """Return the state of a boot service as lines of text."""
    if not service.enabled:
        return [f"no boot service is installed; --kind auto would select {service.choice}"]
    starts = {True: "starts at boot", False: "does NOT start at boot", None: "no boot seen yet"}
    shown = [f"{service.kind}: {starts[service.at_boot]}{_in_brackets(service.why)}"]
    for unit in service.units:
        state = f"{unit.active} ({unit.sub}), result {unit.result}, {unit.restarts} restarts"
        shown.append(f"{unit.unit}: {unit.problem or state}")
    if service.models:
        problem = service.serving.problem if service.serving else None
        shown.append(f"serves {', '.join(service.models)}{_in_brackets(problem)}")
    return [*shown, _last_run(service)]


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""


def _last_run(service: Autostart) -> str:
    last = service.last
    if last is None:
        return "it has not run yet"
    when = "in this boot" if service.ran_in_this_boot else "in an earlier boot"
    result = "finished everything" if last.ok else f"failed: {last.problem}"
    changed = [f"{name} {model.state}" for name, model in sorted(last.models.items()) if model.changed]
    return (
        f"last run {when}, {last.since_boot_s:.0f} s after boot: {result}{_in_brackets(', '.join(changed))}"
    )
