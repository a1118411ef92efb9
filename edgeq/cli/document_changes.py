"""Changes of the workspace's trust document for `edgeq keys`: propose a version, sign it, show it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.cli.signing import private_keys
from edgeq.cli.ui import App
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.bundle.keys import PublicKey
    from edgeq.bundle.trust_chain import TrustChain
    from edgeq.bundle.trust_document import Amendment, SignedDocument, TrustDocument

SCHEMA = "edgeq.keys.document/1"
_KEY_ID = 16
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def rotate(app: App, old: str, new: PublicKey, signers: Sequence[str]) -> None:
    """Replace a key by another one in every role that it has, and revoke it."""
    from edgeq.bundle.trust_document import Amendment
    from edgeq.errors import TrustDocumentError

    document = latest_document(app)
    old_id = id_of(app, old)
    if new.id == old_id:
        raise UsageError("NEW", expected="another key than OLD", got=document.name_of(old_id))
    in_root, in_release = (old_id in role.keys for role in (document.roles.root, document.roles.release))
    if not in_root and not in_release:
        raise TrustDocumentError(
            f"key {document.name_of(old_id)}", f"has no role in trust document {document.version}"
        )
    amendment = Amendment(
        add_root=[new] if in_root else [], add_release=[new] if in_release else [], revoke=[old_id]
    )
    amend(app, amendment, signers)


def reset_counters(app: App, counters: Mapping[str, int], signers: Sequence[str]) -> None:
    """Lower the counters of models by a new version of the document."""
    from edgeq.bundle.trust_document import Amendment

    amend(app, Amendment(reset_counters=counters, void=withdrawn_by(app, counters)), signers)


def check_model(name: str) -> None:
    """Refuse what cannot be the name of a model.

    Raises:
        UsageError: it has other characters.
    """
    if not _MODEL.fullmatch(name):
        raise UsageError("MODEL", expected="lower-case letters, digits and ._-", got=repr(name[:80]))


def public_or_new(app: App, key: str) -> PublicKey:
    """Return a public key; a name that no key has yet gets a new one."""
    from edgeq.bundle.keys import find_public, keys_folder, new_key

    folder = keys_folder(app.workspace)
    elsewhere = ":" in key or os.sep in key or key.endswith(".pub")
    if elsewhere or any((folder / name).exists() for name in (key, f"{key}.pub")):
        return find_public(app.workspace, key)
    made = new_key(app.workspace, key).public
    app.ui.say(f"created the key {made.name} ({made.id}) in {folder}")
    return made


def id_of(app: App, key: str) -> str:
    """Return the id of a key: an id, its name in the trust document, a key of the workspace, or a file."""
    from edgeq.bundle.keys import find_public

    if len(key) == _KEY_ID and set(key) <= set("0123456789abcdef"):
        return key
    document = read_chain(app).latest
    named = [] if document is None else [i for i, entry in document.keys.items() if entry.name == key]
    return named[0] if len(named) == 1 else find_public(app.workspace, key).id


def document_path(app: App) -> Path:
    """Return the file of the workspace's trust document."""
    from edgeq.bundle.trust_chain import chain_path

    return chain_path(app.workspace)


def read_chain(app: App) -> TrustChain:
    """Return the versions of the workspace's trust document."""
    from edgeq.bundle.trust_chain import load_chain

    return load_chain(document_path(app))


def latest_document(app: App) -> TrustDocument:
    """Return the document in force.

    Raises:
        TrustDocumentError: there is none.
    """
    from edgeq.errors import TrustDocumentError

    document = read_chain(app).latest
    if document is None:
        raise TrustDocumentError(
            str(document_path(app)),
            "there is no trust document in force",
            hint="`edgeq keys init` makes one; with `--on DEVICE` the devices themselves are changed",
        )
    return document


def amend(app: App, amendment: Amendment, signers: Sequence[str]) -> None:
    """Propose the next version, signed by these keys, or by all root keys that can sign here."""
    from edgeq.bundle.trust_document import next_document
    from edgeq.errors import TrustDocumentError

    draft = next_document(latest_document(app), amendment)
    chain = read_chain(app)
    if chain.draft is not None:
        raise TrustDocumentError(
            str(document_path(app)),
            f"version {chain.draft.document.version} is a draft that waits for signatures",
            hint="sign it (`edgeq keys sign --by KEY`), or drop it (`edgeq keys change --discard`)",
        )
    propose(app, chain, draft, signers)


def propose(
    app: App, chain: TrustChain, draft: SignedDocument, signers: Sequence[str], also: Sequence[str] = ()
) -> None:
    """Write a draft, which comes into force if its signatures are enough.

    Args:
        signers: names of keys; by default all root keys that can sign here.
        also: ids of further keys that sign if they can.
    """
    from edgeq.bundle.signers import names_here
    from edgeq.bundle.trust_chain import save_chain
    from edgeq.bundle.trust_document import MAX_SIGNATURES

    roots = [*draft.document.roles.root.keys, *(chain.latest.roles.root.keys if chain.latest else ())]
    names = [*signers] if signers else names_here(app.workspace, roots)
    names += [name for name in names_here(app.workspace, also) if name not in names]
    chain = chain.proposed(draft, private_keys(app, names[:MAX_SIGNATURES]))
    save_chain(document_path(app), chain)
    show_after(app, chain, document_path(app))


def show_after(app: App, chain: TrustChain, path: Path) -> None:
    """Show the document after a command, and what to do next."""
    show_lines(app, chain)
    app.ui.emit(SCHEMA, document_body(app, chain))
    if chain.draft is not None:
        app.ui.say("the draft is not in force: devices do not get it before it has its signatures")
        app.ui.say(
            "a copy of the file can be signed elsewhere; then import it here: `edgeq keys import FILE`"
        )
        app.ui.next("keys", "sign", path, "--by", "KEY")
    elif chain.documents:
        app.ui.say("devices get the document with the next deploy, or now:")
        app.ui.next("keys", "push", "--on", "all")


def show_lines(app: App, chain: TrustChain) -> None:
    """Show the document in force and the draft."""
    from edgeq.bundle.trust_document import needed

    for title, signed in (
        ("trust document", chain.documents[-1:]),
        ("draft", (chain.draft,) if chain.draft else ()),
    ):
        for each in signed:
            document = each.document
            app.ui.line(f"{title} {document.version}, expires {_day(document.expires_s)}")
            for name in ("root", "release"):
                role = document.role(name)
                keys = ", ".join(document.name_of(key_id) for key_id in role.keys)
                app.ui.line(f"  {name}: {role.threshold} of {keys}")
            if document.revoked:
                app.ui.line(
                    f"  revoked: {', '.join(document.name_of(key_id) for key_id in document.revoked)}"
                )
            for model, reset in document.counters.items():
                app.ui.line(f"  counter of {model}: reset to {reset.counter} by version {reset.version}")
    if chain.draft is not None:
        for root, ids in needed(chain.latest, chain.draft).items():
            known = chain.latest if root == "old root" and chain.latest else chain.draft.document
            app.ui.line(f"  the {root} must still sign: {' or '.join(known.name_of(i) for i in ids)}")


def document_body(app: App, chain: TrustChain) -> dict[str, Any]:
    """Return the document of `--json`."""
    from edgeq.bundle.trust_document import needed

    return {
        "path": str(document_path(app)),
        "version": chain.version,
        "document": chain.documents[-1].to_request() if chain.documents else None,
        "draft": chain.draft.to_request() if chain.draft else None,
        "needed": needed(chain.latest, chain.draft) if chain.draft else {},
    }


def drop_draft(app: App) -> None:
    """Drop the draft."""
    from dataclasses import replace

    from edgeq.bundle.trust_chain import save_chain

    chain = replace(read_chain(app), draft=None)
    save_chain(document_path(app), chain)
    show_after(app, chain, document_path(app))


def withdrawn_by(app: App, counters: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the releases of the workspace that a reset of these counters withdraws, newest last."""
    from edgeq.bundle.counters import above
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        known = [(record.release, record.manifest) for record in store.releases()]
    return {model: above(known, model, counter) for model, counter in counters.items()}


def restart_version(app: App, version: int | None) -> int:
    """Return the version of a document that replaces one: after the workspace's, or as given."""
    from edgeq.bundle.trust_chain import load_chain
    from edgeq.errors import TrustDocumentError

    if version is not None:
        return version
    try:
        return load_chain(document_path(app)).version + 1
    except TrustDocumentError as error:
        hint = "give --version N, above the version that `edgeq keys list --on all` shows"
        raise TrustDocumentError(error.subject, error.problem, hint=hint) from error


def check_restart(app: App, release_keys: Sequence[PublicKey], *, root_is_named: bool) -> None:
    """Refuse to restart a document with keys that cannot do it.

    Raises:
        TrustDocumentError: the private part of `root` is lost, or the replaced document revoked a key.
    """
    from edgeq.bundle.keys import has_private, known_keys
    from edgeq.errors import TrustDocumentError

    roots = [key for key in known_keys(app.workspace) if key.name == "root" and not root_is_named]
    if not all(has_private(app.workspace, key) for key in roots):
        raise TrustDocumentError(
            "key root",
            "its private part is not here, so it cannot sign the new document",
            hint="name another root key, which is created: `edgeq keys init --restart --root NEW`",
        )
    try:
        replaced = read_chain(app).latest
    except TrustDocumentError:
        return  # it is damaged, which is why it is replaced
    for key in release_keys:
        if replaced is not None and key.id in replaced.revoked:
            raise TrustDocumentError(
                f"key {key.name}",
                f"trust document {replaced.version} revoked it, and devices never trust it again",
                hint="name another release key: `edgeq keys init --restart --release KEY`",
            )


def keep_replaced(app: App) -> None:
    """Keep the file of a trust document that a new one replaces, beside it."""
    path = document_path(app)
    if path.exists():
        places = (path.with_name(f"trust-replaced-{number}.json") for number in count(1))
        kept = next(place for place in places if not place.exists())
        kept.write_bytes(path.read_bytes())
        app.ui.say(f"the document that it replaces is kept in {kept}")


def _day(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    from edgeq.fleet.trust import format_day

    return format_day(seconds)
