"""`edgeq keys`: make signing keys, and say which of them devices trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.outcome import end, recap_of
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.bundle.keys import PublicKey
    from edgeq.fleet.agent.client import AgentClient

ON = click.option(
    "--on", "selectors", multiple=True, required=True, help="A device, label:KEY=VALUE, or all."
)
RETRIES = retries_option()
BY = click.option(
    "--by",
    "signers",
    multiple=True,
    metavar="KEY",
    help="Sign the change with this key, which the devices trust; once for each.",
)


@click.group("keys")
def keys_command() -> None:
    """Make signing keys; let devices trust or revoke them."""


@command("new", examples=["edgeq keys new release", "edgeq keys new release --json"])
@click.argument("name")
def _new(app: App, name: str) -> None:
    """Make the key NAME in .edgeq/keys: the private file, for its owner alone, and NAME.pub."""
    from edgeq.bundle.keys import keys_folder, new_key

    key = new_key(app.workspace, name).public
    path = keys_folder(app.workspace) / f"{name}.pub"
    app.ui.line(f"{key.id}  {key.name}  {path}")
    app.ui.emit("edgeq.keys.new/1", {"key": _entry(key), "path": str(path)})
    app.ui.say("keep the private file safe: whoever has it can publish; nobody can replace it")
    app.ui.next(f"edgeq keys trust {name} --on DEVICE")


@command("list", examples=["edgeq keys list", "edgeq keys list --on pi", "edgeq keys list --on all --json"])
@click.option("--on", "selectors", multiple=True, help="Devices whose keys to list; else this workspace's.")
@RETRIES
def _list(app: App, selectors: tuple[str, ...], retries: int) -> None:
    """List the keys of this workspace, or those that devices trust."""
    from edgeq.bundle.keys import known_keys

    if selectors:
        _on_devices(app, "edgeq.keys.list/1", selectors, _show, retries, what="keys list")
        return
    keys = known_keys(app.workspace)
    app.ui.table(["id", "name"], [[key.id, key.name] for key in keys])
    app.ui.emit("edgeq.keys.list/1", {"keys": [_entry(key) for key in keys], "devices": []})
    if not keys:
        app.ui.next("edgeq keys new NAME, or `edgeq bundle`, which makes this workspace's own")


@command("export", examples=["edgeq keys export > publisher.pub", "edgeq keys export release --json"])
@click.argument("key", default="workspace")
def _export(app: App, key: str) -> None:
    """Print the public part of KEY as OpenSSH writes it; the private part is never printed."""
    from edgeq.bundle.keys import find_public

    public = find_public(app.workspace, key)
    app.ui.line(public.line)
    app.ui.emit("edgeq.keys.export/1", {"key": _entry(public), "line": public.line})


@command(
    "trust",
    examples=[
        "edgeq keys trust --on pi",
        "edgeq keys trust publisher.pub --on label:site=lab",
        "edgeq keys trust release --on all --by workspace",
    ],
)
@click.argument("key", default="workspace")
@ON
@BY
@RETRIES
def _trust(app: App, key: str, selectors: tuple[str, ...], signers: tuple[str, ...], retries: int) -> None:
    """Let devices accept releases that KEY signs: a name of this workspace, or a .pub file."""
    from edgeq.bundle.keys import find_public

    public = find_public(app.workspace, key)
    _change(app, "edgeq.keys.trust/1", selectors, signers, retries, what="keys trust", add=[public])
    app.ui.next(f"edgeq keys list --on {selectors[0]}")


@command(
    "revoke",
    examples=[
        "edgeq keys revoke 843be49bc5b1b5dc --on all",
        "edgeq keys revoke old.pub --on pi --by release",
    ],
)
@click.argument("key")
@ON
@BY
@RETRIES
def _revoke(app: App, key: str, selectors: tuple[str, ...], signers: tuple[str, ...], retries: int) -> None:
    """Let devices accept nothing more that KEY signs: an id, a name or a .pub file. What serves stays.

    A revoked key stays revoked on a device; trust the new one before.
    """
    from edgeq.bundle.keys import find_public

    is_id = len(key) == 16 and set(key) <= set("0123456789abcdef")
    key_id = key if is_id else find_public(app.workspace, key).id
    _change(app, "edgeq.keys.revoke/1", selectors, signers, retries, what="keys revoke", revoke=[key_id])
    app.ui.next(f"edgeq keys list --on {selectors[0]}")


@command(
    "policy",
    examples=["edgeq keys policy --on all --threshold 2", "edgeq keys policy --on pi --changes signed"],
)
@ON
@BY
@click.option("--threshold", type=click.IntRange(1, 64), help="How many keys must have signed a release.")
@click.option(
    "--changes",
    type=click.Choice(["operator", "signed"]),
    help="Who may change a device's keys: whoever logs in, or only with signatures of its keys.",
)
@RETRIES
def _policy(
    app: App,
    selectors: tuple[str, ...],
    signers: tuple[str, ...],
    threshold: int | None,
    changes: str | None,
    retries: int,
) -> None:
    """Say how many signatures a release needs, and who may change a device's keys."""
    from edgeq.errors import UsageError

    if threshold is None and changes is None:
        raise UsageError("edgeq keys policy", expected="--threshold or --changes", got="neither")
    _change(
        app,
        "edgeq.keys.policy/1",
        selectors,
        signers,
        retries,
        what="keys policy",
        threshold=threshold,
        changes=changes,
    )


for _command in (_new, _list, _export, _trust, _revoke, _policy):
    keys_command.add_command(_command)


def _show(client: AgentClient) -> dict[str, Any]:
    from edgeq.fleet.trust import shown

    return shown(client)


def _change(
    app: App,
    schema: str,
    selectors: Sequence[str],
    signers: Sequence[str],
    retries: int,
    *,
    what: str,
    **wanted: Any,
) -> None:
    from edgeq.bundle.keys import find_private
    from edgeq.fleet.trust import change

    keys = [find_private(app.workspace, key) for key in signers]
    _on_devices(
        app, schema, selectors, lambda client: change(client, **wanted, signers=keys), retries, what=what
    )


def _on_devices(
    app: App,
    schema: str,
    selectors: Sequence[str],
    call: Callable[[AgentClient], dict[str, Any]],
    retries: int,
    *,
    what: str,
) -> None:
    from edgeq.fleet.connect import ask
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.parallel import on_each

    retry = retry_of(app, retries)
    # A signed change is for one moment of the store alone: begun again it is refused, not done twice.
    repeatable = what == "keys list"
    devices = Inventory.load(app.workspace).select(selectors)
    results = on_each(devices, lambda device: ask(device, call, repeatable=repeatable, retry=retry))
    if what != "keys list":
        _note(app, what, results.done)
    entries: list[dict[str, Any]] = []
    rows = []
    for name, store in results.done.items():
        entries.append({"device": name, "ok": True, **store})
        rows += [[name, key["id"], key["name"], key["state"]] for key in store["keys"]]
    entries += [{"device": n, "ok": False, "error": e.to_dict()} for n, e in results.failed.items()]
    app.ui.table(["device", "id", "name", "state"], rows)
    for name, store in results.done.items():
        if store["threshold"] > 1 or store["changes"] != "operator":
            app.ui.line(f"{name}: {store['threshold']} signatures a release; changes by {store['changes']}")
    for name, error in results.failed.items():
        app.ui.line(recap_of(name, error))
    body: dict[str, Any] = {"keys": [], "devices": entries}
    end(app, schema, body, results.failed, asked=len(devices), what=what)


def _note(app: App, what: str, stores: Mapping[str, Any]) -> None:
    import getpass

    from edgeq.store import Store

    told = ("keys", "threshold", "changes", "sequence")
    with Store.open(app.workspace) as store:
        for name, answer in stores.items():
            store.record_audit(getpass.getuser(), what, name, {key: answer.get(key) for key in told})


def _entry(key: PublicKey) -> dict[str, Any]:
    return {"id": key.id, "name": key.name, "public": key.base64}
