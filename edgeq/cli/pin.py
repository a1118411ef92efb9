"""`edgeq pin` and `edgeq unpin`: keep a release on devices, or let prune remove it."""

from __future__ import annotations

import click

from edgeq.cli import completing
from edgeq.cli.device_options import on_option, retries_option, retry_policy
from edgeq.cli.device_results import finish, print_failures
from edgeq.cli.ui import App, command

_release_option = click.option(
    "--release",
    help="The release's id, or its first digits; by default the current release.",
    shell_complete=completing.releases,
    metavar="ID",
)


@command("pin", examples=["edgeq pin kws --on pi", "edgeq pin kws --release 3265b70d --on label:site=lab"])
@click.argument("model", shell_complete=completing.models)
@_release_option
@on_option
@retries_option()
def pin_command(app: App, model: str, release: str | None, selectors: tuple[str, ...], retries: int) -> None:
    """Pin a release of MODEL on devices: `edgeq prune` keeps it until it is unpinned."""
    _change(app, model, release, selectors, keep=True, retries=retries)


@command("unpin", examples=["edgeq unpin kws --on pi", "edgeq unpin kws --release 3265b70d --on all --json"])
@click.argument("model", shell_complete=completing.models)
@_release_option
@on_option
@retries_option()
def unpin_command(
    app: App, model: str, release: str | None, selectors: tuple[str, ...], retries: int
) -> None:
    """Unpin a release of MODEL; `edgeq prune` then removes it unless something else refers to it."""
    _change(app, model, release, selectors, keep=False, retries=retries)


def _change(
    app: App, model: str, release: str | None, selectors: tuple[str, ...], *, keep: bool, retries: int
) -> None:
    from edgeq.fleet.operations import pin_many
    from edgeq.store import Store

    devices = app.inventory().select(selectors)
    with Store.open(app.workspace) as store:
        results = pin_many(
            devices, model, release, keep=keep, retry_policy=retry_policy(app, retries), store=store
        )
    for name, result in results.done.items():
        state = "pinned" if keep else "not pinned"
        unchanged = "" if result.changed else ", as before"
        app.ui.line(f"{name}: {model} {result.release[:12]} is {state}{unchanged}")
    print_failures(app, results.failed)
    verb = "pin" if keep else "unpin"
    body = {"model": model, "devices": results.entries(lambda result: result.document)}
    schema = "edgeq.pin/1" if keep else "edgeq.unpin/1"
    finish(app, schema, body, results.failed, device_count=len(devices), what=verb)
    app.ui.next("prune", "--on", devices[0].name, "--dry-run")
