"""`edgeq keys`: make, change, sign, exchange and send the trust document of a fleet."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import on_option, retries_option, retry_policy
from edgeq.cli.device_results import finish, print_failures
from edgeq.cli.document_changes import (
    SCHEMA,
    amend,
    check_model,
    check_restart,
    document_body,
    document_path,
    drop_draft,
    id_of,
    keep_replaced,
    propose,
    public_or_new,
    read_chain,
    restart_version,
    show_after,
    show_lines,
    withdrawn_by,
)
from edgeq.cli.signing import private_keys
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError

FILE = click.Path(path_type=Path, dir_okay=False)
_threshold = click.IntRange(1, 64)
_by_option = click.option(
    "--by",
    "signers",
    multiple=True,
    metavar="KEY",
    help="Sign with this key of the role root; repeatable.  [default: all root keys that can sign here]",
    shell_complete=completing.keys,
)
_expires_option = click.option(
    "--expires",
    metavar="DATE",
    help="Devices admit no new release from this day (UTC, 2027-01-31) on; `never` removes it.",
)
_changes_option = click.option(
    "--changes",
    type=click.Choice(["operator", "signed"]),
    help="Whether a login alone may replace the document (`keys push --by-login`), or never.",
)


@command(
    "init",
    examples=[
        "edgeq keys init",
        "edgeq keys init --root alice.pub --root bob.pub --root-threshold 2 --by alice",
        "edgeq keys init --expires 2027-06-30 --changes signed",
    ],
)
@click.option(
    "--root", "root", multiple=True, metavar="KEY", help="Key of the role root; repeatable.  [default: root]"
)
@click.option(
    "--root-threshold", type=_threshold, help="How many root keys must sign a document.  [default: 1]"
)
@click.option(
    "--release",
    "release",
    multiple=True,
    metavar="KEY",
    help="Key that signs releases; repeatable.  [default: workspace]",
)
@click.option("--release-threshold", type=_threshold, help="How many keys must sign a release.  [default: 1]")
@_changes_option
@_expires_option
@click.option(
    "--restart",
    is_flag=True,
    help="Replace a document whose root keys are lost or stolen; see `keys push --by-login`.",
)
@click.option(
    "--version",
    "version",
    type=click.IntRange(1, 2**53 - 1),
    help="With --restart: the version, above that of every device.",
)
@_by_option
def _init(
    app: App,
    root: tuple[str, ...],
    root_threshold: int | None,
    release: tuple[str, ...],
    release_threshold: int | None,
    changes: str | None,
    expires: str | None,
    restart: bool,
    version: int | None,
    signers: tuple[str, ...],
) -> None:
    """Start a trust document: the role root says which keys sign releases, and can revoke them all.

    The key `root` is created if no other is named. Keep it away from the machine that signs releases.
    Enrolled devices go over to the document at the next deploy, if their present keys have signed it, too.
    """
    from edgeq.bundle.keys import WORKSPACE_KEY, find_public, known_keys
    from edgeq.bundle.trust_chain import TrustChain, chain_path, load_chain
    from edgeq.bundle.trust_document import Amendment, first_document
    from edgeq.errors import TrustDocumentError

    chain = TrustChain() if restart else load_chain(chain_path(app.workspace))
    if chain.documents or chain.draft:
        raise TrustDocumentError(
            str(chain_path(app.workspace)),
            "exists already",
            hint="change it with `edgeq keys change`; `--restart` replaces one whose root keys are lost",
        )
    number = restart_version(app, version) if restart else 1
    release_keys = [find_public(app.workspace, key) for key in release or (WORKSPACE_KEY,)]
    if restart:
        check_restart(app, release_keys, root_is_named=bool(root))
    amendment = Amendment(
        add_root=[public_or_new(app, key) for key in root or ("root",)],
        add_release=release_keys,
        root_threshold=root_threshold,
        release_threshold=release_threshold,
        changes=changes or "operator",
        expires_s=_expiry(expires)[0],
    )
    draft = first_document(amendment, version=number)
    # The keys that enrolled devices trust today sign it, too: that is how those devices accept it.
    own = [key.id for key in known_keys(app.workspace)] if number == 1 else []
    if restart:
        keep_replaced(app)
    propose(app, chain, draft, signers, also=own)


@command("show", examples=["edgeq keys show", "edgeq keys show --json"])
def _show(app: App) -> None:
    """Show the trust document of the workspace, and the draft of the next version."""
    chain = read_chain(app)
    show_lines(app, chain)
    app.ui.emit(SCHEMA, document_body(app, chain))
    if chain.latest is None and chain.draft is None:
        app.ui.say("this workspace has no trust document; devices follow the keys that they received")
        app.ui.next("keys", "init")


@command(
    "change",
    examples=[
        "edgeq keys change --add-release next --revoke workspace",
        "edgeq keys change --add-root carol.pub --root-threshold 2 --by alice --by carol",
        "edgeq keys change --expires 2027-12-31",
    ],
)
@click.option("--add-root", multiple=True, metavar="KEY", help="Give the role root to this key; repeatable.")
@click.option(
    "--add-release", multiple=True, metavar="KEY", help="Give the role release to this key; repeatable."
)
@click.option(
    "--drop-root", multiple=True, metavar="KEY", help="Take the role root away, without revoking the key."
)
@click.option(
    "--drop-release",
    multiple=True,
    metavar="KEY",
    help="Take the role release away, without revoking the key.",
)
@click.option("--revoke", multiple=True, metavar="KEY", help="Revoke this key, which is final; repeatable.")
@click.option("--root-threshold", type=_threshold, help="How many root keys must sign a document.")
@click.option("--release-threshold", type=_threshold, help="How many keys must sign a release.")
@_changes_option
@_expires_option
@click.option("--discard", is_flag=True, help="Drop the draft that waits for signatures.")
@_by_option
def _change(
    app: App,
    add_root: tuple[str, ...],
    add_release: tuple[str, ...],
    drop_root: tuple[str, ...],
    drop_release: tuple[str, ...],
    revoke: tuple[str, ...],
    root_threshold: int | None,
    release_threshold: int | None,
    changes: str | None,
    expires: str | None,
    discard: bool,
    signers: tuple[str, ...],
) -> None:
    """Make the next version of the trust document; keys of the old and of the new root sign it."""
    from edgeq.bundle.keys import find_public
    from edgeq.bundle.trust_document import Amendment

    if discard:
        drop_draft(app)
        return
    expires_s, never = _expiry(expires)
    amendment = Amendment(
        add_root=[find_public(app.workspace, key) for key in add_root],
        add_release=[find_public(app.workspace, key) for key in add_release],
        drop_root=[id_of(app, key) for key in drop_root],
        drop_release=[id_of(app, key) for key in drop_release],
        revoke=[id_of(app, key) for key in revoke],
        root_threshold=root_threshold,
        release_threshold=release_threshold,
        changes=changes,
        expires_s=expires_s,
        never_expires=never,
    )
    if amendment == Amendment(add_root=[], add_release=[], drop_root=[], drop_release=[], revoke=[]):
        raise UsageError("edgeq keys change", expected="what to change", got="no option that does")
    amend(app, amendment, signers)


@command(
    "recover",
    examples=[
        "edgeq keys recover workspace --replace-by next --reset-counter kws=17",
        "edgeq keys recover 843be49bc5b1b5dc --reset-counter kws=17 --reset-counter pose=4",
    ],
)
@click.argument("leaked", nargs=-1, required=True, shell_complete=completing.keys)
@click.option(
    "--replace-by",
    multiple=True,
    metavar="KEY",
    help="Give the role release to this key, created if missing; repeatable.",
)
@click.option(
    "--reset-counter",
    "resets",
    multiple=True,
    metavar="MODEL=N",
    help="Lower the counter of a model to that of its last good release; repeatable.",
)
@_by_option
def _recover(
    app: App,
    leaked: tuple[str, ...],
    replace_by: tuple[str, ...],
    resets: tuple[str, ...],
    signers: tuple[str, ...],
) -> None:
    """Revoke LEAKED keys, name their successors and reset counters, in one document.

    Devices get it with `edgeq keys push --on all`. Releases that were signed with a LEAKED key serve until
    another one is deployed.
    """
    from edgeq.bundle.trust_document import Amendment
    from edgeq.errors import TrustDocumentError

    counters = dict(_model_counter(text) for text in resets)
    if read_chain(app).latest is None:  # before a key is made
        raise TrustDocumentError(
            str(document_path(app)),
            "there is no trust document in force",
            hint="without one, `edgeq keys rotate LEAKED NEW --on all` replaces the key on the devices, and "
            "`edgeq keys reset-counter MODEL --to N --on all` lowers the counter",
        )
    amendment = Amendment(
        revoke=[id_of(app, key) for key in leaked],
        add_release=[public_or_new(app, key) for key in replace_by],
        reset_counters=counters,
        void=withdrawn_by(app, counters),
    )
    amend(app, amendment, signers)


@command(
    "sign", examples=["edgeq keys sign --by root", "edgeq keys sign /media/stick/trust.json --by agent:alice"]
)
@click.argument("file", type=FILE, required=False)
@_by_option
def _sign(app: App, file: Path | None, signers: tuple[str, ...]) -> None:
    """Sign the draft of a trust document: the workspace's, or that in a copy of .edgeq/trust.json."""
    from edgeq.bundle.signers import names_here
    from edgeq.bundle.trust_chain import load_chain, save_chain
    from edgeq.bundle.trust_document import needed
    from edgeq.errors import TrustDocumentError

    path = file or document_path(app)
    if not path.exists():
        raise TrustDocumentError(str(path), "no such file", hint="make a document: `edgeq keys init`")
    chain = load_chain(path)
    open_ids = (
        () if chain.draft is None else [i for ids in needed(chain.latest, chain.draft).values() for i in ids]
    )
    chain = chain.signed(private_keys(app, signers or names_here(app.workspace, open_ids)), subject=str(path))
    save_chain(path, chain)
    show_after(app, chain, path)


@command("import", examples=["edgeq keys import /media/stick/trust.json"])
@click.argument("file", type=FILE)
def _import(app: App, file: Path) -> None:
    """Take over later versions and signatures from a copy of another workspace's .edgeq/trust.json."""
    from edgeq.bundle.trust_chain import load_chain, merged, save_chain
    from edgeq.errors import TrustDocumentError

    theirs = load_chain(file)
    if not theirs.documents and theirs.draft is None:
        raise TrustDocumentError(str(file), "has no trust document")
    chain = merged(load_chain(document_path(app)), theirs, subject=str(file))
    save_chain(document_path(app), chain)
    show_after(app, chain, document_path(app))


@command(
    "push",
    examples=["edgeq keys push --on all", "edgeq keys push --on pi --by-login"],
)
@on_option
@click.option(
    "--by-login",
    is_flag=True,
    help="Let the login be the authority where the device's keys have not signed; its policy must allow it.",
)
@retries_option()
def _push(app: App, selectors: tuple[str, ...], by_login: bool, retries: int) -> None:
    """Send the trust document to devices, with all versions that they lack. `edgeq deploy` does it, too."""
    from edgeq.errors import TrustDocumentError
    from edgeq.fleet.trust_documents import push_many
    from edgeq.store import Store

    chain = read_chain(app)
    if not chain.documents:
        raise TrustDocumentError(
            str(document_path(app)),
            "there is no trust document in force",
            hint="`edgeq keys init` starts one"
            if chain.draft is None
            else "the draft waits for signatures: `edgeq keys sign --by KEY`",
        )
    devices = app.inventory().select(selectors)
    with Store.open(app.workspace) as store:
        policy = retry_policy(app, retries)
        results = push_many(devices, chain, by_login=by_login, retry_policy=policy, store=store)
    for name, trust in results.done.items():
        how = "follows" if trust.changed else "follows already"
        app.ui.line(f"{name}: {how} trust document {trust.version}; releases by {', '.join(trust.active)}")
    print_failures(app, results.failed)
    body: dict[str, Any] = {
        "version": chain.version,
        "devices": results.entries(lambda trust: trust.document),
    }
    finish(app, "edgeq.keys.push/1", body, results.failed, device_count=len(devices), what="keys push")


DOCUMENT_COMMANDS = (_init, _show, _change, _recover, _sign, _import, _push)


def _model_counter(text: str) -> tuple[str, int]:
    model, _, counter = text.partition("=")
    if not model or not counter.isdecimal():
        raise UsageError("--reset-counter", expected="MODEL=N, such as kws=17", got=repr(text))
    check_model(model)
    return model, int(counter)


def _expiry(text: str | None) -> tuple[int | None, bool]:
    """Return (seconds since 1970 or None, whether an expiry is removed)."""
    if text in (None, "never"):
        return None, text == "never"
    try:
        moment = datetime.datetime.fromisoformat(str(text))
    except ValueError as error:
        raise UsageError(
            "--expires", expected="a day such as 2027-01-31, or never", got=repr(text)
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    if moment <= datetime.datetime.now(datetime.UTC):
        raise UsageError("--expires", expected="a day in the future", got=str(text))
    return int(moment.timestamp()), False
