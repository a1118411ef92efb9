"""The versions of a workspace's trust document in `.edgeq/trust.json`, and the next one while it is signed.

    {"schema": "edgeq.trust-chain/1", "documents": [{"document": {...}, "signatures": [...]}, ...],
     "draft": {"document": {...}, "signatures": [...]} or null}

There is nothing secret in it. A copy of the file is how root keys on several machines sign one draft.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.bundle.keys import SigningKey
from edgeq.bundle.trust_document import KeySignature, SignedDocument, TrustDocument, needed, parse_signed
from edgeq.errors import TrustDocumentError
from edgeq.files import write_atomic
from edgeq_agent import wire

SCHEMA = "edgeq.trust-chain/1"
_LARGEST_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustChain:
    """The versions in force, oldest first, each signed by the root of the one before and by its own.

    Attributes:
        draft: the next version, which lacks signatures.
    """

    documents: tuple[SignedDocument, ...] = ()
    draft: SignedDocument | None = None

    @property
    def latest(self) -> TrustDocument | None:
        """The document in force; None where the workspace has none."""
        return self.documents[-1].document if self.documents else None

    @property
    def version(self) -> int:
        """The version in force; 0 where there is none."""
        return self.latest.version if self.latest else 0

    @property
    def void(self) -> frozenset[str]:
        """The releases that counter resets withdrew."""
        resets = self.latest.counters.values() if self.latest else ()
        return frozenset(release for reset in resets for release in reset.void)

    def digest_of(self, version: int) -> str | None:
        """Return the digest of a version; None where the chain does not have it."""
        return next((each.digest for each in self.documents if each.document.version == version), None)

    def after(self, version: int) -> tuple[SignedDocument, ...]:
        """Return the documents that a device with this version still needs, in order.

        Empty if it has the latest one, or if the chain begins later than with the next version.
        """
        later = tuple(each for each in self.documents if each.document.version > version)
        return later if later and later[0].document.version == version + 1 else ()

    def proposed(self, draft: SignedDocument, keys: Sequence[SigningKey]) -> TrustChain:
        """Return the chain with a draft that these keys sign; it comes into force when it has enough."""
        return _settled(replace(self, draft=draft.signed_by(keys)))

    def signed(self, keys: Sequence[SigningKey], *, subject: str) -> TrustChain:
        """Return the chain with the draft signed by these keys, too.

        Raises:
            TrustDocumentError: there is no draft, or none of the keys has a say in it.
        """
        if self.draft is None:
            raise TrustDocumentError(subject, "has no draft to sign", hint="make one: `edgeq keys change`")
        open_ids = {key_id for ids in needed(self.latest, self.draft).values() for key_id in ids}
        useful = [key for key in keys if key.public.id in open_ids]
        if not useful:
            got = " and ".join(f"{key.public.name} ({key.public.id})" for key in keys)
            raise TrustDocumentError(subject, expected=_either(self), got=got)
        return self.proposed(self.draft, useful)


def chain_path(workspace: Path) -> Path:
    """Return the file of a workspace's chain."""
    return workspace / ".edgeq" / "trust.json"


def load_chain(path: Path) -> TrustChain:
    """Return a chain, with all its signatures checked; an empty one where the file is missing.

    Raises:
        TrustDocumentError: the file is damaged, or was changed by someone without the keys.
    """
    subject = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
        document = json.loads(data) if len(data) <= _LARGEST_BYTES else None
        wire.canonical(document)
    except FileNotFoundError:
        return TrustChain()
    except (OSError, ValueError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "is not JSON"
        raise TrustDocumentError(subject, str(reason)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise TrustDocumentError(subject, expected=f"a file with the schema {SCHEMA}", got="another file")
    entries, draft = document.get("documents"), document.get("draft")
    if not isinstance(entries, list):
        raise TrustDocumentError(subject, "`documents` is not a list")
    chain = TrustChain(
        documents=tuple(parse_signed(entry, subject=subject) for entry in entries),
        draft=None if draft is None else parse_signed(draft, subject=subject),
    )
    _verify(chain, subject)
    return chain


def save_chain(path: Path, chain: TrustChain) -> None:
    """Replace the file of a chain.

    Raises:
        TrustDocumentError: it cannot be written.
    """
    body = {
        "schema": SCHEMA,
        "documents": [each.to_request() for each in chain.documents],
        "draft": chain.draft.to_request() if chain.draft else None,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise TrustDocumentError(str(path), f"cannot be written: {error.strerror}") from error


def merged(ours: TrustChain, theirs: TrustChain, *, subject: str) -> TrustChain:
    """Return our chain with what a copy of it gained elsewhere: later versions, and signatures of the draft.

    Raises:
        TrustDocumentError: the copy is of another chain, or has another draft.
    """
    versions = {each.document.version: each.digest for each in theirs.documents}
    common = [each for each in ours.documents if each.document.version in versions]
    if any(versions[each.document.version] != each.digest for each in common) or (
        ours.documents and not common
    ):
        raise TrustDocumentError(
            subject,
            "is of another trust document than this workspace's",
            hint="`edgeq keys show` shows this one; to follow the other, move .edgeq/trust.json away first",
        )
    longer = theirs if theirs.version > ours.version else ours
    drafts = [
        each for each in (ours.draft, theirs.draft) if each and each.document.version == longer.version + 1
    ]
    if not drafts:
        return replace(longer, draft=None)
    if len({each.digest for each in drafts}) > 1:
        raise TrustDocumentError(
            subject,
            "has another draft than this workspace",
            hint="drop one of them: `edgeq keys change --discard`",
        )
    signatures: dict[str, KeySignature] = {}
    for each in drafts:
        signatures.update({signature.key_id: signature for signature in each.signatures})
    return _settled(replace(longer, draft=replace(drafts[0], signatures=tuple(signatures.values()))))


def _settled(chain: TrustChain) -> TrustChain:
    if chain.draft is None or needed(chain.latest, chain.draft):
        return chain
    return TrustChain(documents=(*chain.documents, chain.draft))


def _verify(chain: TrustChain, subject: str) -> None:
    before: TrustDocument | None = None
    for each in chain.documents:
        version = each.document.version
        if before is not None and version != before.version + 1:
            raise TrustDocumentError(subject, f"version {before.version + 1} is missing")
        if needed(before, each):
            raise TrustDocumentError(
                subject,
                f"version {version} is not signed by enough root keys: the file was changed or damaged",
                hint="restore the file from a copy, or `edgeq keys import FILE` from another workspace",
            )
        before = each.document


def _either(chain: TrustChain) -> str:
    draft = chain.draft
    ids = {key_id for ids in (needed(chain.latest, draft) if draft else {}).values() for key_id in ids}
    known = [document for document in (chain.latest, draft.document if draft else None) if document]
    names = {key_id: next(d.name_of(key_id) for d in reversed(known) if key_id in d.keys) for key_id in ids}
    return "a signature of " + " or ".join(names[key_id] for key_id in sorted(names))
