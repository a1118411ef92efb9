"""`edgeq pin` and `edgeq unpin`: keep a release on devices, or let it go."""

from __future__ import annotations

from typing import Any

import click

from edgeq.cli.outcome import end, recap_of
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command

_ON = click.option(
    "--on", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all."
)
_RELEASE = click.option(
    "--release", help="Its id, or the first digits of it; the one that serves by default."
)


@command("pin", examples=["edgeq pin kws --on pi", "edgeq pin kws --release 3265b70d --on label:site=lab"])
@click.argument("model")
@_RELEASE
@_ON
@retries_option()
def pin_command(app: App, model: str, release: str | None, selectors: tuple[str, ...], retries: int) -> None:
    """Keep a release of MODEL on devices: `edgeq prune` leaves it there until it is unpinned."""
    _change(app, model, release, selectors, keep=True, retries=retries)


@command("unpin", examples=["edgeq unpin kws --on pi", "edgeq unpin kws --release 3265b70d --on all --json"])
@click.argument("model")
@_RELEASE
@_ON
@retries_option()
def unpin_command(
    app: App, model: str, release: str | None, selectors: tuple[str, ...], retries: int
) -> None:
    """Let a pinned release of MODEL go; `edgeq prune` removes it once nothing else refers to it."""
    _change(app, model, release, selectors, keep=False, retries=retries)


def _change(
    app: App, model: str, release: str | None, selectors: tuple[str, ...], *, keep: bool, retries: int
) -> None:
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.operations import pin
    from edgeq.fleet.parallel import on_each
    from edgeq.store import Store

    devices = Inventory.load(app.workspace).select(selectors)
    retry = retry_of(app, retries)
    results = on_each(devices, lambda device: pin(device, model, release, keep=keep, retry=retry))
    entries: list[dict[str, Any]] = []
    for name, answer in results.done.items():
        what = "pinned" if keep else "not pinned"
        already = "" if answer["changed"] else ", as before"
        app.ui.line(f"{name}: {model} {answer['release'][:12]} is {what}{already}")
        entries.append({"device": name, "ok": True, **answer})
    for name, error in results.failed.items():
        app.ui.line(recap_of(name, error))
        entries.append({"device": name, "ok": False, "error": error.to_dict()})
    word = "pin" if keep else "unpin"
    with Store.open(app.workspace) as store:
        store.record_run(word, model, {"devices": entries})
    schema = "edgeq.pin/1" if keep else "edgeq.unpin/1"
    end(app, schema, {"model": model, "devices": entries}, results.failed, asked=len(devices), what=word)
    app.ui.next(f"edgeq prune --on {devices[0].name} --dry-run")
