"""`edgeq keys`: create signing keys, and manage which keys devices trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import on_option, retries_option, retry_policy, selector_option
from edgeq.cli.device_results import finish, print_failures
from edgeq.cli.keys_document import DOCUMENT_COMMANDS
from edgeq.cli.ui import App, CommandGroup, command

if TYPE_CHECKING:
    from edgeq.bundle.keys import PublicKey
    from edgeq.fleet.parallel import Results
    from edgeq.fleet.trust import TrustChange, TrustStore

_by_option = click.option(
    "--by",
    "signers",
    multiple=True,
    metavar="KEY",
    help="Sign the change with this key, which the devices trust; repeatable.",
    shell_complete=completing.keys,
)
_on_or_document_option = selector_option(
    "--on",
    required=False,
    help="Change these devices, which follow no trust document; by default the trust document changes.",
)


@click.group("keys", cls=CommandGroup)
def keys_command() -> None:
    """Create signing keys; manage which keys devices trust, one by one or by a trust document."""


@command(
    "new",
    examples=["edgeq keys new release", "edgeq keys new root --passphrase", "edgeq keys new release --json"],
)
@click.argument("name")
@click.option(
    "--passphrase",
    "protect",
    is_flag=True,
    help="Protect the private file: asks for a passphrase, or takes it from EDGEQ_KEY_PASSPHRASE_FILE.",
)
def _new(app: App, name: str, protect: bool) -> None:
    """Create the key NAME in .edgeq/keys: the private file, readable by its owner only, and NAME.pub."""
    from edgeq.bundle.keys import keys_folder, new_key
    from edgeq.cli.signing import new_passphrase

    key = new_key(app.workspace, name, passphrase=new_passphrase(app, name) if protect else None).public
    path = keys_folder(app.workspace) / f"{name}.pub"
    app.ui.line(f"{key.id}  {key.name}  {path}")
    app.ui.emit("edgeq.keys.new/1", {"key": _entry(key), "path": str(path)})
    app.ui.say("keep the private file safe: whoever has it can publish releases, and it cannot be recovered")
    app.ui.next("keys", "trust", name, "--on", "DEVICE")


@command("list", examples=["edgeq keys list", "edgeq keys list --on pi", "edgeq keys list --on all --json"])
@selector_option(
    "--on", required=False, help="List the keys that these devices trust; by default this workspace's keys."
)
@retries_option()
def _list(app: App, selectors: tuple[str, ...], retries: int) -> None:
    """List the keys of this workspace, or the keys that devices trust."""
    from edgeq.bundle.keys import known_keys

    if selectors:
        _list_trusted(app, selectors, retries)
        return
    keys = known_keys(app.workspace)
    app.ui.table(["id", "name"], [[key.id, key.name] for key in keys])
    app.ui.emit("edgeq.keys.list/1", {"keys": [_entry(key) for key in keys], "devices": []})
    if not keys:
        app.ui.next("keys", "new", "NAME")


@command("export", examples=["edgeq keys export > publisher.pub", "edgeq keys export release --json"])
@click.argument("key", default="workspace", shell_complete=completing.keys)
def _export(app: App, key: str) -> None:
    """Print the public part of KEY in OpenSSH's format; the private part is never printed."""
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
@click.argument("key", default="workspace", shell_complete=completing.keys)
@on_option
@_by_option
@retries_option()
def _trust(app: App, key: str, selectors: tuple[str, ...], signers: tuple[str, ...], retries: int) -> None:
    """Make devices accept releases signed by KEY: a key name of this workspace, or a .pub file."""
    from edgeq.bundle.keys import find_public
    from edgeq.fleet.trust import TrustChange

    public = find_public(app.workspace, key)
    trust_change = TrustChange(add=[public])
    _change(app, "edgeq.keys.trust/1", selectors, signers, retries, trust_change, what="keys trust")
    app.ui.next("keys", "list", "--on", selectors[0])


@command(
    "revoke",
    examples=[
        "edgeq keys revoke 843be49bc5b1b5dc --on all",
        "edgeq keys revoke old.pub --on pi --by release",
    ],
)
@click.argument("key", shell_complete=completing.keys)
@on_option
@_by_option
@retries_option()
def _revoke(app: App, key: str, selectors: tuple[str, ...], signers: tuple[str, ...], retries: int) -> None:
    """Make devices refuse releases signed by KEY: an id, a key name or a .pub file. Current releases stay.

    A device never trusts a revoked key again, so make it trust the new key first.
    """
    from edgeq.bundle.keys import find_public
    from edgeq.fleet.trust import TrustChange

    is_id = len(key) == 16 and set(key) <= set("0123456789abcdef")
    key_id = key if is_id else find_public(app.workspace, key).id
    trust_change = TrustChange(revoke=[key_id])
    _change(app, "edgeq.keys.revoke/1", selectors, signers, retries, trust_change, what="keys revoke")
    app.ui.next("keys", "list", "--on", selectors[0])


@command(
    "policy",
    examples=["edgeq keys policy --on all --threshold 2", "edgeq keys policy --on pi --changes signed"],
)
@on_option
@_by_option
@click.option("--threshold", type=click.IntRange(1, 64), help="How many keys must sign a release.")
@click.option(
    "--changes",
    type=click.Choice(["operator", "signed"]),
    help="Who may change a device's keys: anyone who can log in, or only changes signed by its keys.",
)
@retries_option()
def _policy(
    app: App,
    selectors: tuple[str, ...],
    signers: tuple[str, ...],
    threshold: int | None,
    changes: str | None,
    retries: int,
) -> None:
    """Set how many signatures a release needs, and who may change a device's keys."""
    from edgeq.errors import UsageError
    from edgeq.fleet.trust import TrustChange

    if threshold is None and changes is None:
        raise UsageError("edgeq keys policy", expected="--threshold or --changes", got="neither")
    trust_change = TrustChange(threshold=threshold, changes=changes)
    _change(app, "edgeq.keys.policy/1", selectors, signers, retries, trust_change, what="keys policy")


@command(
    "rotate",
    examples=[
        "edgeq keys rotate workspace next",
        "edgeq keys rotate workspace next --on all --by workspace",
    ],
)
@click.argument("old", shell_complete=completing.keys)
@click.argument("new")
@_on_or_document_option
@_by_option
@retries_option()
def _rotate(
    app: App, old: str, new: str, selectors: tuple[str, ...], signers: tuple[str, ...], retries: int
) -> None:
    """Replace the key OLD by NEW in one step, and revoke OLD; NEW is created if there is none.

    No moment is left in which too few keys are trusted.
    """
    from edgeq.cli import document_changes
    from edgeq.fleet.trust import TrustChange

    if not selectors:
        document_changes.latest_document(app)  # before a key is made
    new_public = document_changes.public_or_new(app, new)
    if not selectors:
        document_changes.rotate(app, old, new_public, signers)
        return
    trust_change = TrustChange(add=[new_public], revoke=[document_changes.id_of(app, old)])
    _change(app, "edgeq.keys.rotate/1", selectors, signers, retries, trust_change, what="keys rotate")
    app.ui.next("keys", "list", "--on", selectors[0])


@command(
    "reset-counter",
    examples=[
        "edgeq keys reset-counter kws --to 17",
        "edgeq keys reset-counter kws --to 17 --on pi",
    ],
)
@click.argument("model", shell_complete=completing.models)
@click.option(
    "--to",
    "counter",
    type=click.IntRange(0, 2**53 - 1),
    required=True,
    help="The counter of the last good release.",
)
@_on_or_document_option
@_by_option
@retries_option()
def _reset_counter(
    app: App, model: str, counter: int, selectors: tuple[str, ...], signers: tuple[str, ...], retries: int
) -> None:
    """Lower the release counter of MODEL, after a leaked key or a mistake used up the numbers.

    Devices accept the numbers after it again. Releases with a higher one that are known here or are on the
    device are withdrawn. Revoke a leaked key first, or in the same document: `edgeq keys recover`.
    """
    from edgeq.cli import document_changes
    from edgeq.fleet.trust import TrustChange

    document_changes.check_model(model)
    if not selectors:
        document_changes.reset_counters(app, {model: counter}, signers)
        return
    _change(
        app,
        "edgeq.keys.reset-counter/1",
        selectors,
        signers,
        retries,
        TrustChange(reset_counters={model: counter}),
        what="keys reset-counter",
    )
    app.ui.next("keys", "list", "--on", selectors[0])


for _command in (_new, _list, _export, _trust, _revoke, _policy, _rotate, _reset_counter):
    keys_command.add_command(_command)
for _command in DOCUMENT_COMMANDS:
    keys_command.add_command(_command)


def _list_trusted(app: App, selectors: Sequence[str], retries: int) -> None:
    from edgeq.fleet.connect import ask
    from edgeq.fleet.parallel import on_each
    from edgeq.fleet.trust import read_trust

    policy = retry_policy(app, retries)
    devices = app.inventory().select(selectors)
    results = on_each(devices, lambda device: ask(device, read_trust, repeatable=True, retry_policy=policy))
    _report(app, "edgeq.keys.list/1", results, device_count=len(devices), what="keys list")


def _change(
    app: App,
    schema: str,
    selectors: Sequence[str],
    signers: Sequence[str],
    retries: int,
    trust_change: TrustChange,
    *,
    what: str,
) -> None:
    from edgeq.cli.signing import private_keys
    from edgeq.fleet.trust import change_many
    from edgeq.store import Store

    keys = private_keys(app, signers)
    devices = app.inventory().select(selectors)
    with Store.open(app.workspace) as store:
        results = change_many(
            devices,
            what,
            trust_change,
            signers=keys,
            retry_policy=retry_policy(app, retries),
            store=store,
        )
    _report(app, schema, results, device_count=len(devices), what=what)


def _report(app: App, schema: str, results: Results[TrustStore], *, device_count: int, what: str) -> None:
    rows = [[name, key.id, key.name, key.state] for name, store in results.done.items() for key in store.keys]
    if rows:
        app.ui.table(["device", "id", "name", "state"], rows)
    for name, store in results.done.items():
        if store.version:
            root = f"{store.root.threshold} of {', '.join(store.root.keys)}" if store.root else "unknown"
            app.ui.line(f"{name}: follows trust document {store.version}; its root is {root}")
        if store.threshold > 1 or store.changes != "operator":
            app.ui.line(f"{name}: {store.threshold} signatures per release; changes by {store.changes}")
    print_failures(app, results.failed)
    body: dict[str, Any] = {"keys": [], "devices": results.entries(lambda store: store.document)}
    finish(app, schema, body, results.failed, device_count=device_count, what=what)


def _entry(key: PublicKey) -> dict[str, Any]:
    return {"id": key.id, "name": key.name, "public": key.base64}
