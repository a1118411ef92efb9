"""The keys that sign here: those of a role, from their files or in the ssh agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeq.bundle.keys import Passphrase, SigningKey, find_private, has_private, known_keys, workspace_key
from edgeq.bundle.trust_chain import chain_path, load_chain
from edgeq.errors import TrustDocumentError


def names_here(workspace: Path, ids: Sequence[str]) -> list[str]:
    """Return the names of the workspace's keys with these ids that can sign here, each once."""
    known = {key.id: key for key in known_keys(workspace)}
    here = [known[key_id] for key_id in dict.fromkeys(ids) if key_id in known]
    return [key.name for key in here if has_private(workspace, key)]


def release_signers(workspace: Path, passphrase: Passphrase | None = None) -> list[SigningKey]:
    """Return the keys that sign a release by default.

    Without a trust document it is the workspace's own key. With one, it is as many keys of the role release
    as its threshold, or all that can sign here if there are fewer.

    Raises:
        TrustDocumentError: no key of the role can sign here.
        SigningKeyError: a key cannot be used.
    """
    document = load_chain(chain_path(workspace)).latest
    if document is None:
        return [workspace_key(workspace, passphrase)]
    role = document.roles.release
    names = names_here(workspace, role.keys)
    if not names:
        raise TrustDocumentError(
            f"trust document {document.version}",
            "no key of the role release can sign here",
            expected=" or ".join(document.name_of(key_id) for key_id in role.keys),
            hint="name one with `--sign KEY`; `agent:NAME` is a key of the ssh agent",
        )
    return [find_private(workspace, name, passphrase) for name in names[: role.threshold]]
