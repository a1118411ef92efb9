"""Find a recorded lineage by a file, a bundle, a release or the first digits of a digest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.conversion.lineage import Lineage, short
from edgeq.conversion.recorded_lineage import chain_of, lineages_by_digest
from edgeq.errors import StoreError, UsageError
from edgeq.files import sha256_of
from edgeq.store import Store

_MODEL = "model.tflite"


def chain(workspace: Path, what: str) -> list[Lineage]:
    """Return the lineage of a file, followed by that of its source, and so on.

    Raises:
        UsageError: neither a file nor a digest, or an ambiguous start of a digest.
        StoreError: EQ611, the store has no record of it; or its record cannot be read.
    """
    with Store.open(workspace) as store:
        known = lineages_by_digest(store)
        digest = _digest(store, what, known)
    if digest not in known:
        raise StoreError(
            what,
            f"the store of {workspace.resolve()} has no record of how it was made (sha256 {short(digest)})",
            hint="name the folder where it was converted with --workspace; `edgeq runs` lists the records",
            code="EQ611",
        )
    return chain_of(known, digest)


def _digest(store: Store, what: str, known: Mapping[str, Any]) -> str:
    path = Path(what)
    if path.is_file():
        if path.suffix == ".eqb":
            from edgeq.bundle import read_bundle

            return str(read_bundle(path).manifest["files"][_MODEL]["sha256"])
        return sha256_of(path)
    if not re.fullmatch(r"[0-9a-f]{4,64}", what):
        raise UsageError(what, expected="a file, or a digest of at least 4 hex digits", got="no such file")
    releases = {r.release: str(r.manifest["files"][_MODEL]["sha256"]) for r in store.releases()}
    matches = {digest for digest in known if digest.startswith(what)}
    matches |= {digest for release, digest in releases.items() if release.startswith(what)}
    if len(matches) > 1:
        listed = ", ".join(short(digest) for digest in sorted(matches)[:5])
        raise UsageError(what, f"{len(matches)} records start with it", got=listed, hint="give more digits")
    return next(iter(matches), what)
